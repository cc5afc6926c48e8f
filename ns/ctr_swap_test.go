package ns

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A directory that was looked at and is a link when the container's process opens it, or has one on its way, is refused: what
// it would lead to is not the container's, be it the root, a layer or a mount.
func TestSwapped(t *testing.T) {
	needsRoot(t)
	eachCtr(t, func(t *testing.T, s Spec) {
		uses := map[string]func(*Spec, *os.File){
			"root":  func(s *Spec, f *os.File) { s.Root.Dir = f },
			"layer": func(s *Spec, f *os.File) { s.Root.Lower = []*os.File{f} },
			"mount": func(s *Spec, f *os.File) { s.Mounts = []Mount{{Target: "/mnt", From: f}} },
		}
		for name, use := range uses {
			for _, way := range []string{"dir", "."} {
				top := ownDir(t, s)
				dir, secret := filepath.Join(top, "on", "dir"), filepath.Join(top, "secret")
				for _, d := range []string{dir, filepath.Join(secret, "dir")} {
					if err := os.MkdirAll(d, 0755); err != nil {
						t.Fatal(err)
					}
				}
				f := openDir(t, dir)
				c := s
				use(&c, f)
				swapped := filepath.Join(filepath.Dir(dir), way)
				c.probe = func(*Plan) {
					if err := errors.Join(os.Rename(filepath.Clean(swapped), top+"/old"), os.Symlink(secret, filepath.Clean(swapped))); err != nil {
						t.Error(err)
					}
				}
				p, err := Create(withTimeout(t), c)
				if !errors.Is(err, unix.ELOOP) {
					t.Errorf("%s, where %s is a link: %v", name, filepath.Clean(swapped), err)
				}
				if p != nil {
					p.End()
				}
			}
		}
	})
}
