# Code without call-frame information, see cases.c.
        .text

        .globl  assembler_leaf
        .type   assembler_leaf, @function
assembler_leaf:
        movq    $0, %rax
        movl    16(%rax), %eax
        ret
        .size   assembler_leaf, .-assembler_leaf

        .globl  assembler_frame
        .type   assembler_frame, @function
assembler_frame:
        push    %rbp
        mov     %rsp, %rbp
        sub     $32, %rsp
        call    callee
        leave
        ret
        .size   assembler_frame, .-assembler_frame

        .globl  assembler_push
        .type   assembler_push, @function
assembler_push:
        push    %rbx
        sub     $48, %rsp
        call    callee
        add     $48, %rsp
        pop     %rbx
        ret
        .size   assembler_push, .-assembler_push

# Go: the frame first, then the frame pointer at its upper end. The outermost function's frame pointer is 0.
        .globl  assembler_go
        .type   assembler_go, @function
assembler_go:
        push    %rbx
        push    %rbp
        mov     %rsp, %rbx
        mov     %rsi, %rsp
        xor     %ebp, %ebp
        call    go_outer
        mov     %rbx, %rsp
        pop     %rbp
        pop     %rbx
        ret
        .size   assembler_go, .-assembler_go

        .type   go_outer, @function
go_outer:
        sub     $40, %rsp
        mov     %rbp, 32(%rsp)
        lea     32(%rsp), %rbp
        call    go_inner
        mov     32(%rsp), %rbp
        add     $40, %rsp
        ret
        .size   go_outer, .-go_outer

        .type   go_inner, @function
go_inner:
        sub     $88, %rsp
        mov     %rbp, 80(%rsp)
        lea     80(%rsp), %rbp
        call    callee
        mov     80(%rsp), %rbp
        add     $88, %rsp
        ret
        .size   go_inner, .-go_inner

        .section .note.GNU-stack, "", @progbits
