package proc

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	spec "github.com/opencontainers/runtime-spec/specs-go"

	"ctrfs/ctl"
	"ctrfs/ns"
)

// config is the parked process as a runtime-spec process object.
func (p *Proc) config(context.Context) (string, error) {
	var out spec.Process
	var user ns.Cred
	if err := p.change("config", func(j *Job) {
		out.Args, out.Env, user = j.args, append([]string(nil), j.env...), j.user
	}); err != nil {
		return "", err
	}
	out.User = spec.User{UID: user.Uid, GID: user.Gid, AdditionalGids: user.Groups}
	limits, err := p.Process.Limits()
	if err == nil {
		out.Cwd, err = p.Process.Cwd(ns.Cred{Uid: uint32(os.Geteuid())}) // until its program runs nobody but root may look
	}
	if err != nil {
		return "", err
	}
	for _, l := range limits {
		out.Rlimits = append(out.Rlimits, spec.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(l.Name), Soft: l.Soft, Hard: l.Hard})
	}
	text, err := json.MarshalIndent(out, "", "\t")
	return string(text) + "\n", err
}

// setConfig does what the object says by the verbs that say the same. While that failed no program is executed: a shell does
// not hear what a close answers.
func (p *Proc) setConfig(ctx context.Context, text string) error {
	err := p.configure(ctx, text)
	return cmp.Or(err, p.change("config", func(j *Job) { j.config = err }))
}

func (p *Proc) configure(ctx context.Context, text string) error {
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	var in spec.Process
	err := d.Decode(&in)
	var msg string
	if err == nil {
		msg, err = messages(&in)
	}
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if err := verbs.Do(p, ctx, msg); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return p.change("config", func(j *Job) { j.args = in.Args })
}

// messages are those of ctl that say what the object says, in the order in which they can be carried out. What no verb
// says is an error.
func messages(in *spec.Process) (string, error) {
	for _, x := range []struct {
		name string
		set  bool
	}{
		{"apparmorProfile", in.ApparmorProfile != ""}, {"selinuxLabel", in.SelinuxLabel != ""}, {"scheduler", in.Scheduler != nil},
		{"ioPriority", in.IOPriority != nil}, {"commandLine", in.CommandLine != ""}, {"execCPUAffinity", in.ExecCPUAffinity != nil},
		{"noNewPrivileges", in.NoNewPrivileges},
	} {
		if x.set {
			return "", fmt.Errorf("%s: not supported", x.name)
		}
	}
	var b strings.Builder
	say := func(words ...string) { b.WriteString(ctl.Quote(words...) + "\n") }
	if in.Cwd != "" {
		say("dir", in.Cwd)
	}
	say("newenv")
	for _, e := range in.Env {
		say("env", e)
	}
	for _, l := range in.Rlimits {
		name, ok := strings.CutPrefix(l.Type, "RLIMIT_")
		if !ok {
			return "", fmt.Errorf("no such limit: %q", l.Type)
		}
		say("limit", strings.ToLower(name), limit(l.Soft), limit(l.Hard))
	}
	if in.OOMScoreAdj != nil {
		say("oom", fmt.Sprint(*in.OOMScoreAdj))
	}
	if in.Terminal && in.ConsoleSize != nil {
		say("tty", fmt.Sprint(in.ConsoleSize.Width), fmt.Sprint(in.ConsoleSize.Height))
	} else if in.Terminal {
		say("tty")
	}
	if in.User.Umask != nil {
		say("umask", fmt.Sprintf("%03o", *in.User.Umask))
	}
	if c := in.Capabilities; c != nil {
		// What a program has at the most: the other sets follow from it for root, and are empty for others.
		words := []string{"cap"}
		for _, name := range c.Bounding {
			words = append(words, strings.ToLower(name))
		}
		if len(words) == 1 {
			return "", fmt.Errorf("capabilities: no bounding set")
		}
		say(words...)
	}
	groups := []string{fmt.Sprint(in.User.GID)}
	for _, g := range in.User.AdditionalGids {
		groups = append(groups, fmt.Sprint(g))
	}
	if in.User.Username != "" {
		say("user", in.User.Username)
	} else {
		say("user", fmt.Sprintf("%d:%s", in.User.UID, strings.Join(groups, ",")))
	}
	return b.String(), nil
}
