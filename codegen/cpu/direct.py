"""A whole call in one builtin, in LLVM IR: `direct(inputs)` gives the results, or None where that takes a closer look.

    inputs fit → results are small → results made → variables locked → program run without the GIL → unlocked

Its tables and the program's scratch memory are on the stack, so any number of threads may be in it, and a call may be
made while another of the same thread waits.  It owns no object but the list of results: inputs belong to the caller,
whose tuple nobody changes.  Between locking and unlocking nothing of Python's runs.

Whatever it declines it has not begun.  An error is that of the function which has failed; nothing is computed then.

The results are made by `PyArray_Empty` of NumPy's C API.  A lock is taken and given back by two callables without
arguments.
"""

from __future__ import annotations

SCRATCH = 1 << 14
"""Bytes of scratch memory that a program may have on the stack."""

DIRECT = """
%Direct = type {
  ptr, ptr,             ; signature of the inputs, None
  ptr, i64, i64,        ; externals as a call finds them, how many, count of symbols
  i64, ptr, i64,        ; count of results, results, sum of their ranks
  ptr,                  ; PyArray_Empty
  i64, ptr, ptr, ptr,   ; count of locks, what takes each, what gives it back, a byte: may variables be elsewhere?
  ptr, ptr              ; the program's run and arena_bytes
}
%Result = type { %Input, i64 }                  ; as for an input, how many elements are too many

declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
""" + f"""
define ptr @tc_direct(ptr %self, ptr %inputs) {{
entry:
  %address = call ptr @PyTuple_GetItem(ptr %self, i64 0)
  %call = call ptr @PyLong_AsVoidPtr(ptr %address)
  %none_place = getelementptr %Direct, ptr %call, i32 0, i32 1
  %usual_place = getelementptr %Direct, ptr %call, i32 0, i32 2
  %externals_count_place = getelementptr %Direct, ptr %call, i32 0, i32 3
  %symbols_place = getelementptr %Direct, ptr %call, i32 0, i32 4
  %ranks_place = getelementptr %Direct, ptr %call, i32 0, i32 7
  %measure_place = getelementptr %Direct, ptr %call, i32 0, i32 14
  %signature = load ptr, ptr %call, align 8
  %none = load ptr, ptr %none_place, align 8
  %usual = load ptr, ptr %usual_place, align 8
  %externals_count = load i64, ptr %externals_count_place, align 8
  %symbols = load i64, ptr %symbols_place, align 8
  %ranks = load i64, ptr %ranks_place, align 8
  %arena_bytes = load ptr, ptr %measure_place, align 8

  %externals = alloca ptr, i64 %externals_count, align 8
  %sizes = alloca i64, i64 %symbols, align 8
  %shapes = alloca i64, i64 %ranks, align 8
  %externals_bytes = shl i64 %externals_count, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %externals, ptr %usual, i64 %externals_bytes, i1 false)
  %fits = call i1 @bind_all(ptr %inputs, ptr %signature, ptr %externals, ptr %sizes)
  br i1 %fits, label %measure, label %decline

measure:
  %small = call i1 @find_shapes(ptr %call, ptr %sizes, ptr %shapes)
  %scratch = call i64 %arena_bytes(ptr %sizes)
  %modest = icmp ule i64 %scratch, {SCRATCH}
  %possible = and i1 %small, %modest
  br i1 %possible, label %begin, label %decline

begin:
  %arena = alloca i8, i64 %scratch, align 64
  %results = call ptr @make_results(ptr %call, ptr %shapes, ptr %externals)
  %made = icmp ne ptr %results, null
  br i1 %made, label %compute, label %raise
compute:
  %outcome = call i32 @run_locked(ptr %call, ptr %externals, ptr %sizes, ptr %arena)
  %done = icmp eq i32 %outcome, 1
  br i1 %done, label %finish, label %drop
finish:
  ret ptr %results

drop:
  call void @Py_DecRef(ptr %results)
  %raised = icmp slt i32 %outcome, 0
  br i1 %raised, label %raise, label %decline
decline:
  call void @Py_IncRef(ptr %none)
  ret ptr %none
raise:
  ret ptr null
}}
""" + """
; The sizes of all results, one behind the other; whether each is small.
define internal i1 @find_shapes(ptr %call, ptr %sizes, ptr %shapes) alwaysinline {
entry:
  %count_place = getelementptr %Direct, ptr %call, i32 0, i32 5
  %records_place = getelementptr %Direct, ptr %call, i32 0, i32 6
  %count = load i64, ptr %count_place, align 8
  %records = load ptr, ptr %records_place, align 8
  br label %next

next:
  %i = phi i64 [ 0, %entry ], [ %following, %shaped ]
  %shape = phi ptr [ %shapes, %entry ], [ %behind, %shaped ]
  %left = icmp slt i64 %i, %count
  br i1 %left, label %each, label %end
each:
  %record = getelementptr %Result, ptr %records, i64 %i
  %rank_place = getelementptr %Input, ptr %record, i32 0, i32 1
  %words_place = getelementptr %Input, ptr %record, i32 0, i32 2
  %limit_place = getelementptr %Result, ptr %record, i32 0, i32 1
  %rank = load i64, ptr %rank_place, align 8
  %words = load ptr, ptr %words_place, align 8
  %limit = load i64, ptr %limit_place, align 8
  %behind = getelementptr i64, ptr %shape, i64 %rank
  br label %axis

axis:
  %k = phi i64 [ 0, %each ], [ %next_k, %known ]
  %elements = phi i64 [ 1, %each ], [ %more, %known ]
  %unmeasured = icmp slt i64 %k, %rank
  br i1 %unmeasured, label %measure, label %shaped
measure:
  %words_before = shl i64 %k, 1
  %word_place = getelementptr i64, ptr %words, i64 %words_before
  %word = load i64, ptr %word_place, align 8
  %symbolic = icmp slt i64 %word, 0
  br i1 %symbolic, label %recall, label %known
recall:
  %code = xor i64 %word, -1
  %number = lshr i64 %code, 1
  %value_place = getelementptr i64, ptr %sizes, i64 %number
  %value = load i64, ptr %value_place, align 8
  br label %known
known:
  %size = phi i64 [ %word, %measure ], [ %value, %recall ]
  %size_place = getelementptr i64, ptr %shape, i64 %k
  store i64 %size, ptr %size_place, align 8
  %more = mul i64 %elements, %size
  %next_k = add i64 %k, 1
  br label %axis

shaped:
  %small = icmp ult i64 %elements, %limit
  %following = add i64 %i, 1
  br i1 %small, label %next, label %end
end:
  %result = phi i1 [ true, %next ], [ false, %shaped ]
  ret i1 %result
}

; A list of fresh arrays, whose addresses go to the table; null with an exception.
define internal ptr @make_results(ptr %call, ptr %shapes, ptr %externals) alwaysinline {
entry:
  %count_place = getelementptr %Direct, ptr %call, i32 0, i32 5
  %records_place = getelementptr %Direct, ptr %call, i32 0, i32 6
  %empty_place = getelementptr %Direct, ptr %call, i32 0, i32 8
  %count = load i64, ptr %count_place, align 8
  %records = load ptr, ptr %records_place, align 8
  %empty = load ptr, ptr %empty_place, align 8
  %list = call ptr @PyList_New(i64 %count)
  %listed = icmp ne ptr %list, null
  br i1 %listed, label %next, label %raise

next:
  %i = phi i64 [ 0, %entry ], [ %following, %keep ]
  %shape = phi ptr [ %shapes, %entry ], [ %behind, %keep ]
  %left = icmp slt i64 %i, %count
  br i1 %left, label %each, label %end
each:
  %record = getelementptr %Result, ptr %records, i64 %i
  %rank_place = getelementptr %Input, ptr %record, i32 0, i32 1
  %index_place = getelementptr %Input, ptr %record, i32 0, i32 3
  %dtype = load ptr, ptr %record, align 8
  %rank = load i64, ptr %rank_place, align 8
  %index = load i64, ptr %index_place, align 8
  %rank_narrow = trunc i64 %rank to i32
  call void @Py_IncRef(ptr %dtype)              ; PyArray_Empty takes this reference
  %array = call ptr %empty(i32 %rank_narrow, ptr %shape, ptr %dtype, i32 0)
  %made = icmp ne ptr %array, null
  br i1 %made, label %keep, label %drop
keep:
  %set = call i32 @PyList_SetItem(ptr %list, i64 %i, ptr %array)
  %data_place = getelementptr %Array, ptr %array, i32 0, i32 1
  %data = load ptr, ptr %data_place, align 8
  %external_place = getelementptr ptr, ptr %externals, i64 %index
  store ptr %data, ptr %external_place, align 8
  %behind = getelementptr i64, ptr %shape, i64 %rank
  %following = add i64 %i, 1
  br label %next

drop:
  call void @Py_DecRef(ptr %list)
  br label %raise
raise:
  ret ptr null
end:
  ret ptr %list
}

; Runs the program with its variables locked.  Returns 1; 0, not having run it, where variables may be elsewhere; or -1
; with an exception.
define internal i32 @run_locked(ptr %call, ptr %externals, ptr %sizes, ptr %arena) alwaysinline {
entry:
  %locks_place = getelementptr %Direct, ptr %call, i32 0, i32 9
  %acquire_place = getelementptr %Direct, ptr %call, i32 0, i32 10
  %elsewhere_place = getelementptr %Direct, ptr %call, i32 0, i32 12
  %program_place = getelementptr %Direct, ptr %call, i32 0, i32 13
  %locks = load i64, ptr %locks_place, align 8
  %acquire = load ptr, ptr %acquire_place, align 8
  %elsewhere_word = load ptr, ptr %elsewhere_place, align 8
  %program = load ptr, ptr %program_place, align 8
  %type = alloca ptr, align 8
  %value = alloca ptr, align 8
  %trace = alloca ptr, align 8
  %variables = icmp ne i64 %locks, 0
  br i1 %variables, label %lock, label %run

lock:
  %i = phi i64 [ 0, %entry ], [ %following, %locked ]
  %method_place = getelementptr ptr, ptr %acquire, i64 %i
  %method = load ptr, ptr %method_place, align 8
  %taken = call ptr @PyObject_CallNoArgs(ptr %method)
  %is_taken = icmp ne ptr %taken, null
  br i1 %is_taken, label %locked, label %refused
locked:
  call void @Py_DecRef(ptr %taken)
  %following = add i64 %i, 1
  %left = icmp slt i64 %following, %locks
  br i1 %left, label %lock, label %look

look:
  %elsewhere = load i8, ptr %elsewhere_word
  %here = icmp eq i8 %elsewhere, 0
  br i1 %here, label %run, label %finish
run:
  %state = call ptr @PyEval_SaveThread()
  call void %program(ptr %externals, ptr %sizes, ptr %arena)
  call void @PyEval_RestoreThread(ptr %state)
  br label %finish
finish:
  %outcome = phi i32 [ 0, %look ], [ 1, %run ]
  %unlocked = call i1 @unlock(ptr %call, i64 %locks)
  %result = select i1 %unlocked, i32 %outcome, i32 -1
  ret i32 %result

refused:
  call void @PyErr_Fetch(ptr %type, ptr %value, ptr %trace)
  %undone = call i1 @unlock(ptr %call, i64 %i)
  %held_type = load ptr, ptr %type, align 8
  %held_value = load ptr, ptr %value, align 8
  %held_trace = load ptr, ptr %trace, align 8
  call void @PyErr_Restore(ptr %held_type, ptr %held_value, ptr %held_trace)
  ret i32 -1
}

; Gives back the first `count` locks; whether that went well.
define internal i1 @unlock(ptr %call, i64 %count) {
entry:
  %release_place = getelementptr %Direct, ptr %call, i32 0, i32 11
  %release = load ptr, ptr %release_place, align 8
  br label %next

next:
  %i = phi i64 [ 0, %entry ], [ %following, %unlocked ]
  %left = icmp slt i64 %i, %count
  br i1 %left, label %unlock, label %end
unlock:
  %method_place = getelementptr ptr, ptr %release, i64 %i
  %method = load ptr, ptr %method_place, align 8
  %given_back = call ptr @PyObject_CallNoArgs(ptr %method)
  %is_given_back = icmp ne ptr %given_back, null
  br i1 %is_given_back, label %unlocked, label %end
unlocked:
  call void @Py_DecRef(ptr %given_back)
  %following = add i64 %i, 1
  br label %next

end:
  %result = phi i1 [ true, %next ], [ false, %unlock ]
  ret i1 %result
}
"""
