package fs

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

func words(text string) (lines []string) {
	stamp := regexp.MustCompile(`^[-0-9T:.]+Z (\d+) `)
	for _, l := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		lines = append(lines, stamp.ReplaceAllString(l, "$1 "))
	}
	return lines
}

// What is there comes first, then ready, then what happened meanwhile and afterwards; a reader sees only what he may.
func TestFeed(t *testing.T) {
	var f Feed
	ctx := WithClient(context.Background(), &Client{Uid: 7})
	f.Put(Event{Topic: "before"})
	h, err := f.Open(ctx, nil, func(context.Context) []Event {
		f.Put(Event{Topic: "meanwhile", Words: []string{"ctr=a b", "x="}})
		return []Event{{Topic: "present", Words: []string{"ctr=web"}}}
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Put(Event{Topic: "hidden", See: func(c *Client) bool { return c.Uid == 8 }})
	f.Put(Event{Topic: "after", See: func(c *Client) bool { return c.Uid == 7 }})
	b, err := h.Read(ctx, 0, 10000)
	got := strings.Join(words(string(b)), ", ")
	if want := "2 present ctr=web, 2 ready, 2 meanwhile ctr='a b' x=, 4 after"; got != want || err != nil {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
	h.Close(ctx)
	if len(f.subs) != 0 {
		t.Error("a closed reader is still told")
	}
}

// A reader that falls behind gets one line in place of what it missed, and all that comes after.
func TestFeedLost(t *testing.T) {
	var f Feed
	ctx := context.Background()
	h, _ := f.Open(ctx, nil, func(context.Context) []Event { return nil })
	defer h.Close(ctx)
	for i := range 10_000 {
		f.Put(Event{Topic: "tick", Words: []string{fmt.Sprint("n=", i)}})
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	var text string
	for {
		b, err := h.Read(ended, int64(len(text)), 1<<20)
		if err != nil {
			break
		}
		text += string(b)
	}
	f.Put(Event{Topic: "last"})
	b, _ := h.Read(ctx, int64(len(text)), 1000)
	lines := words(text + string(b))
	n, lost := len(lines), 0
	fmt.Sscanf(lines[n-2], "10000 lost %d", &lost)
	if lost == 0 || lost+n-3 != 10_000 || lines[n-1] != "10001 last" {
		t.Errorf("%d lines, lost %d, the end is %q", n, lost, lines[n-3:])
	}
}
