package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// A Number is one that a runtime tells of what a container uses, by where it stands in the event, words with dots between.
type Number struct {
	Name  string
	Value json.Number
}

// Stats is what the container uses now, by runc-events(8), in the order of the names.
func (r *Runtime) Stats(ctx context.Context, id string) ([]Number, error) {
	out, err := r.call(ctx, nil, nil, "events", "--stats", id)
	if err != nil {
		return nil, err
	}
	var event struct{ Data any }
	d := json.NewDecoder(bytes.NewReader(out))
	d.UseNumber()
	if err := d.Decode(&event); err != nil {
		return nil, fmt.Errorf("%s events: %w", r.Name(), err)
	}
	var list []Number
	flatten(&list, "", event.Data)
	slices.SortFunc(list, func(a, b Number) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// flatten adds the numbers in v.
func flatten(list *[]Number, name string, v any) {
	switch v := v.(type) {
	case json.Number:
		*list = append(*list, Number{name[1:], v})
	case map[string]any:
		for k, v := range v {
			flatten(list, name+"."+strings.ToLower(k), v)
		}
	case []any:
		for i, v := range v {
			flatten(list, fmt.Sprintf("%s.%d", name, i), v)
		}
	}
}
