package ctr

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// saidTwice refuses an object with a key twice, of which the decoder would drop one. What d reads was decoded, so it is not too deep.
// The decoder takes fields in any case; the keys of a map are in the case that they are in.
func saidTwice(d *json.Decoder, of string) error {
	start, err := d.Token()
	if err != nil || start != json.Delim('{') && start != json.Delim('[') {
		return err
	}
	isMap := slices.Contains([]string{"annotations", "unified", "sysctl", "rdma", "netDevices"}, of)
	seen := map[string]bool{}
	for key := of; d.More(); {
		if start == json.Delim('{') {
			word, err := d.Token()
			if err != nil {
				return err
			}
			key = word.(string)
			name := key
			if !isMap {
				name = strings.ToLower(key)
			}
			if seen[name] {
				return fmt.Errorf("%.256q is said twice", key)
			}
			seen[name] = true
		}
		if err := saidTwice(d, key); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}
