#include "textflag.h"

// The interpreter of plans; stub_amd64.s says how it works.
//
// R19 the entry, R20 the first one, R21 is 1 in a CLONE_VM child, R22 the entry's flags.
TEXT ·interp(SB), NOSPLIT|NOFRAME, $0-0
	CBNZ R19, start

receive:
	MOVD $0x510000, R1
	ADD  $0x40, R1, R9
	MOVD R9, 16(R1)
	MOVD $1, R9
	MOVD R9, 24(R1)
	ADD  $0x100, R1, R9
	MOVD R9, 32(R1)
	MOVD $0x400, R9
	MOVD R9, 40(R1)
	MOVD $0x500000, R9
	MOVD R9, 0x40(R1)
	MOVD $0x10000, R9
	MOVD R9, 0x48(R1)
	MOVD $3, R0
	MOVD $0x40000000, R2
	MOVD $212, R8           // recvmsg
	SVC
	CMP  $80, R0
	BLT  quit
	MOVD $0x500000, R19

start:
	MOVD R19, R20

step:
	MOVD 0(R19), R8
	CMN  $1, R8
	BEQ  reply
	MOVD 8(R19), R0
	MOVD 56(R19), R22
	TBZ  $2, R22, call
	MOVW (R0), R0
	B    result

call:
	MOVD 16(R19), R1
	MOVD 24(R19), R2
	MOVD 32(R19), R3
	MOVD 40(R19), R4
	MOVD 48(R19), R5
	SVC

result:
	MOVD R0, 72(R19)
	CMN  $4095, R0
	BCS  failed
	TBZ  $1, R22, use
	CBNZ R0, reply

use:
	MOVD 64(R19), R10
	CBZ  R10, next

more:
	MOVD (R10), R11
	CBZ  R11, next
	MOVD R0, (R11)
	ADD  $8, R10
	B    more

failed:
	TBZ  $0, R22, reply

next:
	ADD  $80, R19
	B    step

reply:
	CBNZ R21, quit
	MOVD $64, R8            // write
	MOVD $3, R0
	MOVD R20, R1
	SUB  R20, R19, R2
	ADD  $80, R2
	SVC
	MOVD 56(R19), R9
	TBZ  $1, R9, receive
	MOVD 72(R19), R9
	CMN  $4095, R9
	BCS  receive

quit:
	MOVD $94, R8            // exit_group
	MOVD $127, R0
	SVC
	B    quit
	WORD $0x2e646e65        // "end."

// func text() unsafe.Pointer
TEXT ·text(SB), NOSPLIT, $0-8
	MOVD $·interp(SB), R0
	MOVD R0, ret+0(FP)
	RET

// func clone3(args unsafe.Pointer, size uintptr, table unsafe.Pointer) int
TEXT ·clone3(SB), NOSPLIT, $0-32
	MOVD args+0(FP), R0
	MOVD size+8(FP), R1
	MOVD table+16(FP), R19
	MOVD $435, R8
	SVC
	CBZ  R0, child
	MOVD R0, ret+24(FP)
	RET

child:
	MOVD $1, R21
	B    ·interp(SB)
