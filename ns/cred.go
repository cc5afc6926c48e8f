package ns

// A Cred is a user as the kernel's permission rules know one.
type Cred struct {
	Uid, Gid uint32
	Groups   []uint32 // the supplementary ones
}
