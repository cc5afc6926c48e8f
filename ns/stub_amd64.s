#include "textflag.h"

// The interpreter of plans; see stub.go for the table that it reads. It runs in two
// places: in the CLONE_VM child of clone3 below (R12 is the table, R14 is 1), and, its
// bytes copied behind an ELF header, as the stub (the kernel clears the registers at
// execve). The stub reads a table from descriptor 3, carries it out, writes it back with
// the results and reads the next; at end of file it exits. There is no stack, and no
// memory but the table's.
//
// R12 the entry, R13 the first one, R15 the entry's flags. SYSCALL clobbers CX and R11.
TEXT ·interp(SB), NOSPLIT|NOFRAME, $0-0
	TESTQ R12, R12
	JNE   start

receive: // a plan and its descriptors in one message: the server's death must not part them
	MOVL  $0x510000, SI
	LEAQ  0x40(SI), AX
	MOVQ  AX, 16(SI)        // msg_iov
	MOVQ  $1, 24(SI)        // msg_iovlen
	LEAQ  0x100(SI), AX
	MOVQ  AX, 32(SI)        // msg_control
	MOVQ  $0x400, 40(SI)    // msg_controllen
	MOVQ  $0x500000, 0x40(SI)
	MOVQ  $0x10000, 0x48(SI)
	MOVL  $3, DI
	MOVL  $0x40000000, DX   // MSG_CMSG_CLOEXEC
	MOVL  $47, AX           // recvmsg
	SYSCALL
	CMPQ  AX, $80
	JLT   quit
	MOVL  $0x500000, R12

start:
	MOVQ  R12, R13

step:
	MOVQ  0(R12), AX
	CMPQ  AX, $-1
	JEQ   reply
	MOVQ  8(R12), DI
	MOVQ  56(R12), R15
	TESTQ $4, R15
	JEQ   call
	MOVLQSX (DI), AX
	JMP   result

call:
	MOVQ  16(R12), SI
	MOVQ  24(R12), DX
	MOVQ  32(R12), R10
	MOVQ  40(R12), R8
	MOVQ  48(R12), R9
	SYSCALL

result:
	MOVQ  AX, 72(R12)
	CMPQ  AX, $-4095
	JCC   failed
	TESTQ $2, R15
	JEQ   use
	TESTQ AX, AX
	JNE   reply

use: // hand the result to the arguments that wait for it
	MOVQ  64(R12), BX
	TESTQ BX, BX
	JEQ   next

more:
	MOVQ  (BX), DX
	TESTQ DX, DX
	JEQ   next
	MOVQ  AX, (DX)
	ADDQ  $8, BX
	JMP   more

failed:
	TESTQ $1, R15
	JEQ   reply

next:
	ADDQ  $80, R12
	JMP   step

reply:
	TESTQ R14, R14          // the server reads the table where it is, and 3 may be its own
	JNE   quit
	MOVL  $1, AX            // write
	MOVL  $3, DI
	MOVQ  R13, SI
	MOVQ  R12, DX
	SUBQ  R13, DX
	ADDQ  $80, DX
	SYSCALL
	TESTQ $2, 56(R12)       // the parent side of a split
	JEQ   receive
	MOVQ  72(R12), AX
	CMPQ  AX, $-4095
	JCC   receive           // whose clone failed is still the only one
quit:
	MOVL  $231, AX          // exit_group
	MOVL  $127, DI
	SYSCALL
	JMP   quit
	LONG  $0x2e646e65       // "end."

// func text() unsafe.Pointer
TEXT ·text(SB), NOSPLIT, $0-8
	LEAQ ·interp(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func clone3(args unsafe.Pointer, size uintptr, table unsafe.Pointer) int
TEXT ·clone3(SB), NOSPLIT, $0-32
	MOVQ  args+0(FP), DI
	MOVQ  size+8(FP), SI
	MOVQ  table+16(FP), R12
	MOVL  $435, AX
	SYSCALL
	TESTQ AX, AX
	JEQ   child
	MOVQ  AX, ret+24(FP)
	RET

child:
	MOVL  $1, R14
	JMP   ·interp(SB)
