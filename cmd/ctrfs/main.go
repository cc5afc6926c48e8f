// Ctrfs serves the processes and containers of a machine as a tree of files over 9P, and reads and writes such trees. See
// ctrfs(1) for its flags and ctrfs(4) for the tree.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"ctrfs/ns"
)

func main() {
	ns.Tracer()
	ns.Holder()
	keeper, args, err := ns.Server()
	switch {
	case err != nil:
	case keeper != nil:
		err = serve(keeper, args)
	default:
		err = run(os.Args[1:])
	}
	if err != nil {
		for _, err := range apiece(err) {
			fmt.Fprintln(os.Stderr, "ctrfs:", err)
		}
		if errors.Is(err, errUsage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// errUsage is in the errors of those who call us wrongly.
var errUsage = errors.New("unknown command")

// apiece takes joined errors apart, for a line each.
func apiece(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// run is this program as it was called: a remote verb, or the keeper of a server.
func run(args []string) error {
	if is, err := runRemote(args); is {
		return err
	}
	o, err := parseFlags(args)
	if err != nil {
		return err
	}
	if o.show {
		_, err := fmt.Print(versions())
		_, _, wrong := o.readConf()
		return errors.Join(err, wrong)
	}
	if _, _, err := o.readConf(); err != nil { // here it is said once
		return err
	}
	state, err := o.stateFile()
	if err != nil {
		return err
	}
	os.Exit(ns.Keep(state))
	return nil
}

// options are the flags.
type options struct {
	addrs       []addr
	post, dir   string
	conf        string
	trace, show bool
}

func parseFlags(args []string) (o options, err error) {
	set := flag.NewFlagSet("ctrfs", flag.ExitOnError)
	set.Func("a", "listen at `address` unix!PATH, tcp!HOST!PORT or fd!N; repeatable", func(s string) error {
		a, err := parseAddr(s)
		o.addrs = append(o.addrs, a)
		return err
	})
	set.StringVar(&o.post, "s", "", "post in plan9port's name space as `name`")
	set.StringVar(&o.dir, "m", "", "mount on `directory`, made if it is not there")
	set.StringVar(&o.conf, "c", "", "read the configuration in `file`")
	set.BoolVar(&o.trace, "D", false, "print each message")
	set.BoolVar(&o.show, "V", false, "print the version")
	set.Usage = func() {
		fmt.Fprintln(set.Output(), "usage: ctrfs [-DV] [-c FILE] [-a ADDR]... [-s NAME] [-m DIR]\n"+
			"       ctrfs ls [-2dlt] [-a ADDR] PATH...\n"+
			"       ctrfs read|rdwr|stat [-2] [-a ADDR] PATH...\n"+
			"       ctrfs write [-2l] [-a ADDR] PATH...")
	}
	set.Parse(args)
	if set.NArg() > 0 {
		return o, fmt.Errorf("%w: %q", errUsage, set.Arg(0))
	}
	return o, nil
}

// serve is the server that a keeper has started.
func serve(keeper *ns.Keeper, args []string) error {
	go func() {
		<-keeper.Lost()
		slog.Error("the keeper has died")
		os.Exit(1) // what would be started now would be nobody's child
	}()
	o, err := parseFlags(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	signal.Ignore(syscall.SIGHUP) // of the terminal that it was started from
	s, err := newServer(keeper, stop)
	if err != nil {
		return err
	}
	s.args, s.options = args, o
	slog.SetDefault(s.srv.Log)
	s.traces(o.trace)
	if err := s.configure(keeper, &o); err != nil {
		return err
	}
	if err := s.takeUp(keeper); err != nil {
		return err
	}
	for _, a := range passed() {
		if !slices.Contains(o.addrs, a) { // who names it too means no other
			o.addrs = append(o.addrs, a)
		}
	}
	listeners, err := listenAll(keeper, o.addrs, o.post)
	if err != nil {
		return err
	}
	if err := keeper.Up(); err != nil { // before anybody is answered: what he does then is not to be lost
		return err
	}
	err = s.serve(ctx, listeners, func(ctx context.Context) (down func(), err error) {
		if o.dir != "" {
			down, err = mount(ctx, s.srv.Root, s.srv.Accounts, socket(listeners), o.dir)
		}
		return down, err
	})
	if next := s.next(); next != "" {
		return errors.Join(err, keeper.Next(next))
	}
	end, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	return errors.Join(err, s.ctrs.Close(end), keeper.End())
}

// topMode is the mode of the directory of the default socket: whoever may connect to root's.
func topMode() os.FileMode {
	if os.Geteuid() == 0 {
		return 0755
	}
	return 0700
}

// listenAll listens at all of the addresses and in the name space, at the default address if there are none. The keeper
// holds the sockets: whoever connects while no server runs waits.
func listenAll(keeper *ns.Keeper, addrs []addr, post string) (l []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range l {
				l.Close()
			}
		}
	}()
	if len(addrs) == 0 && post == "" {
		a, err := defaultAddr(os.Geteuid())
		if err != nil {
			return nil, err
		}
		if err := privateDir(filepath.Dir(a.address), topMode()); err != nil {
			return nil, err
		}
		addrs = []addr{a}
	}
	if post != "" {
		me, err := user.Current()
		if err != nil {
			return nil, err
		}
		if post != filepath.Base(post) {
			return nil, fmt.Errorf("post %q: %w", post, errors.New("not a name"))
		}
		ns := nameSpace(me.Username)
		if err := privateDir(ns, 0700); err != nil {
			return nil, err
		}
		addrs = append(addrs, addr{"unix", filepath.Join(ns, post)})
	}
	for _, a := range addrs {
		one, err := a.keep(keeper)
		if err != nil {
			return l, err
		}
		if t, ok := one.Addr().(*net.TCPAddr); ok && a.network == "tcp" { // the kernel chooses where port 0 was said
			host, _, _ := net.SplitHostPort(a.address)
			a.address = net.JoinHostPort(host, strconv.Itoa(t.Port))
		}
		slog.Info("listening", "at", a)
		l = append(l, one)
	}
	return l, nil
}

// socket is the name of a socket by which the kernel can reach us, "" if there is none.
func socket(listeners []net.Listener) string {
	for _, l := range listeners {
		if a, ok := l.Addr().(*net.UnixAddr); ok && filepath.IsAbs(a.Name) {
			return a.Name
		}
	}
	return ""
}
