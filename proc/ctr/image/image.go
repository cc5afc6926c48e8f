// Package image unpacks container images: OCI image layouts, as directories or archives, and what `docker save` writes. An image is
// hostile: what it says is bounded, checked by its digests, and means nothing outside the directory that it is unpacked into.
package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// What an image may have at most.
const (
	MaxJSON    = 4 << 20 // bytes of each of its JSON files
	MaxLayers  = 512
	MaxEntries = 1 << 20 // in all layers together, a directory that is only implied counted
	MaxBytes   = 8 << 30 // in all layers together, unpacked
	MaxNames   = 64 << 20
	MaxDepth   = 128 // directories in a name
)

// A Config is what an image says about running it. See the OCI image specification, config.md.
type Config struct {
	User       string
	Env        []string
	Entrypoint []string
	Cmd        []string
	WorkingDir string
	Labels     map[string]string
}

// A Source is where the files of an image are.
type Source interface {
	// Open opens one by its name; fs.ErrNotExist if there is none.
	Open(name string) (io.ReadCloser, error)
}

// A descriptor names a file by what is in it.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
	Platform    *platform         `json:"platform"`
}

type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
}

func (p *platform) fits() bool {
	return p == nil || p.OS == "linux" && p.Architecture == runtime.GOARCH
}

// A layer is a file and what is known of it: the digest of its bytes, if the image says so, and of what they unpack to.
type layer struct {
	name, digest, diff string
}

// config is the file of an image that says all but its layers.
type config struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Config       Config `json:"config"`
	RootFS       struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

var sha = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// blob is the name of the file with a digest.
func blob(digest string) (string, error) {
	if !sha.MatchString(digest) {
		return "", fmt.Errorf("not a sha256 digest: %q", digest)
	}
	return "blobs/sha256/" + digest[7:], nil
}

// read reads a JSON file into v; a digest, if one is given, must be its.
func read(src Source, name, digest string, v any) error {
	f, err := src.Open(name)
	if err != nil {
		return fmt.Errorf("open %q: %w", name, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxJSON+1))
	switch sum := sha256.Sum256(text); {
	case err != nil:
		return fmt.Errorf("read %q: %w", name, err)
	case len(text) > MaxJSON:
		return fmt.Errorf("%q: longer than %d bytes", name, MaxJSON)
	case digest != "" && digest != "sha256:"+hex.EncodeToString(sum[:]):
		return fmt.Errorf("%q: its digest is another", name)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	return nil
}

// find reads what an image is made of. Ref is its name, needed where there are several.
func find(src Source, ref string) (*config, []layer, error) {
	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	f, err := src.Open("index.json")
	if err != nil {
		return findDocker(src, ref)
	}
	f.Close()
	if err := read(src, "index.json", "", &index); err != nil {
		return nil, nil, err
	}
	list := index.Manifests
	for range 4 { // an index in an index in an index
		d, err := choose(list, ref)
		if err != nil {
			return nil, nil, err
		}
		name, err := blob(d.Digest)
		if err != nil {
			return nil, nil, err
		}
		var m struct {
			Manifests []descriptor `json:"manifests"`
			Config    *descriptor  `json:"config"`
			Layers    []descriptor `json:"layers"`
		}
		if err := read(src, name, d.Digest, &m); err != nil {
			return nil, nil, err
		}
		if m.Config == nil {
			list, ref = m.Manifests, ""
			continue
		}
		if name, err = blob(m.Config.Digest); err != nil {
			return nil, nil, err
		}
		var layers []layer
		for _, l := range m.Layers {
			name, err := blob(l.Digest)
			if err != nil {
				return nil, nil, err
			}
			layers = append(layers, layer{name: name, digest: l.Digest})
		}
		return complete(src, name, m.Config.Digest, layers)
	}
	return nil, nil, fmt.Errorf("index.json: an index of indexes of indexes")
}

// choose gives the one manifest that is called ref, if that is said, and is for this machine.
func choose(list []descriptor, ref string) (d descriptor, err error) {
	var names []string
	n := 0
	for _, m := range list {
		name := m.Annotations["org.opencontainers.image.ref.name"]
		full := m.Annotations["io.containerd.image.name"]
		names = append(names, name)
		if m.Platform.fits() && (ref == "" || ref == name || ref == full) {
			d = m
			n++
		}
	}
	switch {
	case n == 1:
		return d, nil
	case n == 0:
		return d, fmt.Errorf("no image %q for linux/%s among %.256q", ref, runtime.GOARCH, names)
	}
	return d, fmt.Errorf("%d images, say which: %.256q", n, names)
}

// findDocker reads manifest.json, which is what docker save wrote before it wrote layouts.
func findDocker(src Source, ref string) (*config, []layer, error) {
	var list []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := read(src, "manifest.json", "", &list); err != nil {
		return nil, nil, fmt.Errorf("neither index.json nor %w", err)
	}
	if ref != "" {
		list = slices.DeleteFunc(list, func(m struct {
			Config           string
			RepoTags, Layers []string
		}) bool {
			return !slices.Contains(m.RepoTags, ref)
		})
	}
	if len(list) != 1 {
		return nil, nil, fmt.Errorf("%d images called %q", len(list), ref)
	}
	digest := "sha256:" + strings.TrimSuffix(list[0].Config, ".json")
	if !sha.MatchString(digest) {
		digest = ""
	}
	var layers []layer
	for _, name := range list[0].Layers {
		layers = append(layers, layer{name: name})
	}
	return complete(src, list[0].Config, digest, layers)
}

// complete reads the config and what it says of the layers.
func complete(src Source, name, digest string, layers []layer) (*config, []layer, error) {
	c := new(config)
	if err := read(src, name, digest, c); err != nil {
		return nil, nil, err
	}
	p := platform{c.OS, c.Architecture}
	switch {
	case !p.fits():
		return nil, nil, fmt.Errorf("for %.64q and not linux/%s", c.OS+"/"+c.Architecture, runtime.GOARCH)
	case len(layers) > MaxLayers:
		return nil, nil, fmt.Errorf("%d layers", len(layers))
	case len(layers) != len(c.RootFS.DiffIDs):
		return nil, nil, fmt.Errorf("%d layers, and digests of %d", len(layers), len(c.RootFS.DiffIDs))
	}
	for i, d := range c.RootFS.DiffIDs {
		if !sha.MatchString(d) {
			return nil, nil, fmt.Errorf("not a sha256 digest: %.80q", d)
		}
		layers[i].diff = d
	}
	return c, layers, nil
}

// IDs gives the numbers that a user and a group of the image have outside of the container; false: they have none.
type IDs func(uid, gid int) (u, g int, ok bool)

// Unpack unpacks the image called ref, which may be "" where there is one, into the directory root, which is empty and which nobody
// else uses meanwhile. After an error what is in it is good for nothing.
func Unpack(ctx context.Context, src Source, ref string, root int, ids IDs) (*Config, error) {
	c, layers, err := find(src, ref)
	if err != nil {
		return nil, err
	}
	u := &unpacking{root: root, ids: ids, packed: MaxBytes, bytes: MaxBytes, space: MaxBytes, names: MaxNames, entries: MaxEntries}
	for _, l := range layers {
		if err := u.layer(ctx, src, l); err != nil {
			return nil, fmt.Errorf("layer %q: %w", l.name, err)
		}
	}
	return &c.Config, nil
}
