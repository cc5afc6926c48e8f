package ns

// Watch makes the end of p be noted until done is called: a Wait that begins only after the end then still knows when it
// was, and on kernels before 6.15 how it was.
func Watch(p *Process) (done func(), err error) {
	w, err := watching.join(p, false)
	if err != nil {
		return nil, err
	}
	return func() { watching.leave(w) }, nil
}
