// Code without call-frame information, see cases.c.
        .text

        .globl  assembler_leaf
        .type   assembler_leaf, %function
assembler_leaf:
        mov     x9, #0
        ldr     w0, [x9, #16]
        ret
        .size   assembler_leaf, .-assembler_leaf

        .globl  assembler_frame
        .type   assembler_frame, %function
assembler_frame:
        stp     x29, x30, [sp, #-48]!
        mov     x29, sp
        bl      callee
        ldp     x29, x30, [sp], #48
        ret
        .size   assembler_frame, .-assembler_frame

        .globl  assembler_push
        .type   assembler_push, %function
assembler_push:
        str     x30, [sp, #-64]!
        bl      callee
        ldr     x30, [sp], #64
        ret
        .size   assembler_push, .-assembler_push

// Go: the return address at the lower end of the frame, the frame pointer below it, and x29 points there. The outermost
// function's frame pointer is 0.
        .globl  assembler_go
        .type   assembler_go, %function
assembler_go:
        stp     x29, x30, [sp, #-32]!
        str     x19, [sp, #16]
        mov     x19, sp
        sub     sp, x1, #16
        mov     x29, #0
        bl      go_outer
        mov     sp, x19
        ldr     x19, [sp, #16]
        ldp     x29, x30, [sp], #32
        ret
        .size   assembler_go, .-assembler_go

        .type   go_outer, %function
go_outer:
        str     x30, [sp, #-48]!
        stur    x29, [sp, #-8]
        sub     x29, sp, #8
        sub     sp, sp, #16
        bl      go_inner
        add     sp, sp, #16
        ldur    x29, [sp, #-8]
        ldr     x30, [sp], #48
        ret
        .size   go_outer, .-go_outer

        .type   go_inner, %function
go_inner:
        str     x30, [sp, #-96]!
        stur    x29, [sp, #-8]
        sub     x29, sp, #8
        sub     sp, sp, #16
        bl      callee
        add     sp, sp, #16
        ldur    x29, [sp, #-8]
        ldr     x30, [sp], #96
        ret
        .size   go_inner, .-go_inner

        .section .note.GNU-stack, "", %progbits
