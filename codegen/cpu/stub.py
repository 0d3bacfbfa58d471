"""The way from a Python call into a program, in LLVM IR: functions that CPython calls as builtins.

    bind(inputs, externals, sizes) → bool    whether the arrays fit; if so their addresses and sizes are in the tables
    run(externals, sizes, arena) → None      runs the program without the GIL
    direct(inputs) → list or None            a whole call (direct.py)

Tables are passed as addresses.  All find what they need in their `self`, a tuple whose first item is an address: of
a Signature for `bind`, of a program's entry for `run`, whose second item is None, of a Direct for `direct`.  So the
code holds no address and serves every program.

Inputs are an exact tuple of exact ndarrays of the very dtype objects of the signature, C-contiguous and aligned.
Two words say what a size may be.  The first is the size itself where that is known, −1 − 2·symbol where the symbol gets
its value, and −2 − 2·symbol where it must have that value; the second, what a symbol's value may not be less than.

Fields of arrays are read where NumPy 2 lays them, `PyArrayObject_fields` of ndarraytypes.h, behind a head of 16 bytes.
"""

from __future__ import annotations

from tensorc.codegen.cpu.direct import DIRECT

EXPORTS = ("tc_bind", "tc_call", "tc_direct")

PYTHON_SYMBOLS = (
    "PyBool_FromLong",
    "PyErr_BadArgument",
    "PyErr_Fetch",
    "PyErr_Occurred",
    "PyErr_Restore",
    "PyEval_RestoreThread",
    "PyEval_SaveThread",
    "PyList_New",
    "PyList_SetItem",
    "PyLong_AsVoidPtr",
    "PyObject_CallNoArgs",
    "PyTuple_GetItem",
    "PyTuple_Size",
    "Py_DecRef",
    "Py_IncRef",
)


def emit_stub() -> str:
    """The LLVM IR of the builtins; it defines EXPORTS and calls PYTHON_SYMBOLS."""
    return TYPES + BIND + ALL + FIT + SIZES + CALL + DIRECT


TYPES = """
%Signature = type { ptr, ptr, i64, ptr }        ; the types tuple and ndarray, count of inputs, inputs
%Input = type { ptr, i64, ptr, i64 }            ; dtype, rank, words of the sizes, index among the externals

%Object = type { i64, ptr }                     ; references, type
%Array = type { %Object, ptr, i32, ptr, ptr, ptr, ptr, i32 } ; data, rank, sizes, strides, base, dtype, flags

declare ptr @PyBool_FromLong(i64)
declare i32 @PyErr_BadArgument()
declare void @PyErr_Fetch(ptr, ptr, ptr)
declare ptr @PyErr_Occurred()
declare void @PyErr_Restore(ptr, ptr, ptr)
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyEval_SaveThread()
declare ptr @PyList_New(i64)
declare i32 @PyList_SetItem(ptr, i64, ptr)
declare ptr @PyLong_AsVoidPtr(ptr)
declare ptr @PyObject_CallNoArgs(ptr)
declare ptr @PyTuple_GetItem(ptr, i64)
declare i64 @PyTuple_Size(ptr)
declare void @Py_DecRef(ptr)
declare void @Py_IncRef(ptr)
"""

BIND = """
define ptr @tc_bind(ptr %self, ptr %arguments, i64 %count) {
entry:
  %complete = icmp eq i64 %count, 3
  br i1 %complete, label %read, label %misused

read:
  %signature_object = call ptr @PyTuple_GetItem(ptr %self, i64 0)
  %externals_place = getelementptr ptr, ptr %arguments, i64 1
  %sizes_place = getelementptr ptr, ptr %arguments, i64 2
  %inputs = load ptr, ptr %arguments, align 8
  %externals_object = load ptr, ptr %externals_place, align 8
  %sizes_object = load ptr, ptr %sizes_place, align 8
  %signature = call ptr @PyLong_AsVoidPtr(ptr %signature_object)
  %externals = call ptr @PyLong_AsVoidPtr(ptr %externals_object)
  %sizes = call ptr @PyLong_AsVoidPtr(ptr %sizes_object)
  %error = call ptr @PyErr_Occurred()
  %sound = icmp eq ptr %error, null
  br i1 %sound, label %look, label %failed

look:
  %fits = call i1 @bind_all(ptr %inputs, ptr %signature, ptr %externals, ptr %sizes)
  %answer = zext i1 %fits to i64
  %result = call ptr @PyBool_FromLong(i64 %answer)
  ret ptr %result

misused:
  %raised = call i32 @PyErr_BadArgument()
  br label %failed
failed:
  ret ptr null
}
"""

ALL = """
; Whether `inputs` are what the signature asks for; their addresses and the symbols' values go to the tables.
define internal i1 @bind_all(ptr %inputs, ptr %signature, ptr %externals, ptr %sizes) {
entry:
  %type_place = getelementptr %Object, ptr %inputs, i32 0, i32 1
  %type = load ptr, ptr %type_place, align 8
  %tuple_type = load ptr, ptr %signature, align 8
  %is_tuple = icmp eq ptr %type, %tuple_type
  br i1 %is_tuple, label %measure, label %end

measure:
  %array_type_place = getelementptr %Signature, ptr %signature, i32 0, i32 1
  %number_place = getelementptr %Signature, ptr %signature, i32 0, i32 2
  %records_place = getelementptr %Signature, ptr %signature, i32 0, i32 3
  %array_type = load ptr, ptr %array_type_place, align 8
  %number = load i64, ptr %number_place, align 8
  %records = load ptr, ptr %records_place, align 8
  %length = call i64 @PyTuple_Size(ptr %inputs)
  %as_many = icmp eq i64 %length, %number
  br i1 %as_many, label %next, label %end

next:
  %i = phi i64 [ 0, %measure ], [ %following, %fits ]
  %left = icmp slt i64 %i, %number
  br i1 %left, label %each, label %end
each:
  %object = call ptr @PyTuple_GetItem(ptr %inputs, i64 %i)
  %input = getelementptr %Input, ptr %records, i64 %i
  %good = call i1 @fit_array(ptr %object, ptr %array_type, ptr %input)
  br i1 %good, label %sized, label %end
sized:
  %agrees = call i1 @fit_sizes(ptr %object, ptr %input, ptr %sizes)
  br i1 %agrees, label %fits, label %end
fits:
  %data_place = getelementptr %Array, ptr %object, i32 0, i32 1
  %index_place = getelementptr %Input, ptr %input, i32 0, i32 3
  %data = load ptr, ptr %data_place, align 8
  %index = load i64, ptr %index_place, align 8
  %external_place = getelementptr ptr, ptr %externals, i64 %index
  store ptr %data, ptr %external_place, align 8
  %following = add i64 %i, 1
  br label %next

end:
  %result = phi i1 [ true, %next ], [ false, %entry ], [ false, %measure ], [ false, %each ], [ false, %sized ]
  ret i1 %result
}
"""

FIT = """
; Whether `object` is an ndarray of the input's dtype and rank, C-contiguous and aligned.
define internal i1 @fit_array(ptr %object, ptr %array_type, ptr %input) alwaysinline {
entry:
  %type_place = getelementptr %Object, ptr %object, i32 0, i32 1
  %type = load ptr, ptr %type_place, align 8
  %is_array = icmp eq ptr %type, %array_type
  br i1 %is_array, label %look, label %end

look:
  %rank_place = getelementptr %Array, ptr %object, i32 0, i32 2
  %dtype_place = getelementptr %Array, ptr %object, i32 0, i32 6
  %flags_place = getelementptr %Array, ptr %object, i32 0, i32 7
  %wanted_rank_place = getelementptr %Input, ptr %input, i32 0, i32 1
  %rank_narrow = load i32, ptr %rank_place, align 4
  %rank = sext i32 %rank_narrow to i64
  %dtype = load ptr, ptr %dtype_place, align 8
  %flags = load i32, ptr %flags_place, align 4
  %wanted_dtype = load ptr, ptr %input, align 8
  %wanted_rank = load i64, ptr %wanted_rank_place, align 8
  %same_dtype = icmp eq ptr %dtype, %wanted_dtype
  %same_rank = icmp eq i64 %rank, %wanted_rank
  %order = and i32 %flags, 257                  ; NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED
  %plain = icmp eq i32 %order, 257
  %same = and i1 %same_dtype, %same_rank
  %good = and i1 %same, %plain
  br label %end

end:
  %result = phi i1 [ false, %entry ], [ %good, %look ]
  ret i1 %result
}
"""

SIZES = """
; Whether the sizes of an array are those the input asks for; gives symbols their values.
define internal i1 @fit_sizes(ptr %array, ptr %input, ptr %sizes) alwaysinline {
entry:
  %rank_place = getelementptr %Input, ptr %input, i32 0, i32 1
  %words_place = getelementptr %Input, ptr %input, i32 0, i32 2
  %shape_place = getelementptr %Array, ptr %array, i32 0, i32 3
  %rank = load i64, ptr %rank_place, align 8
  %words = load ptr, ptr %words_place, align 8
  %shape = load ptr, ptr %shape_place, align 8
  br label %next

next:
  %i = phi i64 [ 0, %entry ], [ %following, %fits ]
  %left = icmp slt i64 %i, %rank
  br i1 %left, label %each, label %end
each:
  %size_place = getelementptr i64, ptr %shape, i64 %i
  %words_before = shl i64 %i, 1
  %word_place = getelementptr i64, ptr %words, i64 %words_before
  %size = load i64, ptr %size_place, align 8
  %word = load i64, ptr %word_place, align 8
  %symbolic = icmp slt i64 %word, 0
  br i1 %symbolic, label %symbol, label %compare

symbol:
  %code = xor i64 %word, -1
  %number = lshr i64 %code, 1
  %bound_bit = and i64 %code, 1
  %bound = icmp eq i64 %bound_bit, 1
  %value_place = getelementptr i64, ptr %sizes, i64 %number
  br i1 %bound, label %recall, label %measure
measure:
  %least_place = getelementptr i64, ptr %word_place, i64 1
  %least = load i64, ptr %least_place, align 8
  %reaches = icmp sge i64 %size, %least
  br i1 %reaches, label %set, label %end
set:
  store i64 %size, ptr %value_place, align 8
  br label %fits
recall:
  %value = load i64, ptr %value_place, align 8
  br label %compare

compare:
  %wanted = phi i64 [ %word, %each ], [ %value, %recall ]
  %same = icmp eq i64 %size, %wanted
  br i1 %same, label %fits, label %end
fits:
  %following = add i64 %i, 1
  br label %next

end:
  %result = phi i1 [ true, %next ], [ false, %compare ], [ false, %measure ]
  ret i1 %result
}
"""

CALL = """
define ptr @tc_call(ptr %self, ptr %arguments, i64 %count) {
entry:
  %complete = icmp eq i64 %count, 3
  br i1 %complete, label %read, label %misused

read:
  %entry_object = call ptr @PyTuple_GetItem(ptr %self, i64 0)
  %none = call ptr @PyTuple_GetItem(ptr %self, i64 1)
  %sizes_place = getelementptr ptr, ptr %arguments, i64 1
  %arena_place = getelementptr ptr, ptr %arguments, i64 2
  %externals_object = load ptr, ptr %arguments, align 8
  %sizes_object = load ptr, ptr %sizes_place, align 8
  %arena_object = load ptr, ptr %arena_place, align 8
  %program = call ptr @PyLong_AsVoidPtr(ptr %entry_object)
  %externals = call ptr @PyLong_AsVoidPtr(ptr %externals_object)
  %sizes = call ptr @PyLong_AsVoidPtr(ptr %sizes_object)
  %arena = call ptr @PyLong_AsVoidPtr(ptr %arena_object)
  %error = call ptr @PyErr_Occurred()
  %sound = icmp eq ptr %error, null
  br i1 %sound, label %go, label %failed

go:
  %state = call ptr @PyEval_SaveThread()
  call void %program(ptr %externals, ptr %sizes, ptr %arena)
  call void @PyEval_RestoreThread(ptr %state)
  call void @Py_IncRef(ptr %none)
  ret ptr %none

misused:
  %raised = call i32 @PyErr_BadArgument()
  br label %failed
failed:
  ret ptr null
}
"""
