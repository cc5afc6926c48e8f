package main

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"ctrfs/proc/ctr/image"
	it "ctrfs/proc/ctr/image/imagetest"

	rsc "rsc.io/script"
)

// boxImage is a command that makes an image of busybox, which says hello, in a directory of the script's: layout, oci.tar and docker.tar.
func boxImage(t *testing.T) rsc.Cmd {
	return rsc.Command(rsc.CmdUsage{Args: "dir", Summary: "make images"}, func(state *rsc.State, args ...string) (rsc.WaitFunc, error) {
		if len(args) != 1 {
			return nil, rsc.ErrUsage
		}
		bin, err := exec.LookPath("busybox")
		if err != nil {
			lacking(t, "needs busybox: package busybox-static")
		}
		text, err := os.ReadFile(bin)
		if err != nil {
			return nil, err
		}
		layout, docker := it.Box(t, image.Config{
			User: "glenda", Env: []string{"A=hello", "PATH=/bin"}, Cmd: []string{"sh", "-c", "echo $A; id -un; pwd; cat /etc/motd"}, WorkingDir: "/tmp",
		}, text)
		dir := state.Path(args[0])
		it.Dir(t, dir+"/layout", layout)
		err = os.WriteFile(dir+"/oci.tar", it.Tar(t, layout), 0644)
		return nil, errors.Join(err, os.WriteFile(dir+"/docker.tar", it.Tar(t, docker), 0644))
	})
}
