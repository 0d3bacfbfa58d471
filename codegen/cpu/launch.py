"""Running a program's kernels over the pool, in LLVM IR.

    void tc_run(Plan plan, ptr externals, ptr values, ptr arena)

A plan is a constant table of launches, and a function that tells units and work of its kernels by their number.  A
launch names a kernel and holds one word for each buffer and each size that the kernel wants.  The word of a buffer is
an index into `externals`, or −1 − an index into `values`, which is then an offset into the arena; the word of a size is
an index into `values`.

The launches of one step do not depend on each other and become the parts of one parallel region.  Little work is
done at once by the caller.  More is cut into chunks of equal work, a chunk being a range of units of each part it
touches; a part's ranges follow from `floor(position * units / work)` at the chunks' ends, so that they meet exactly.
A unit computes the same wherever it runs, so the cut is free to depend on the number of threads.

Work is scaled down until a product of work and units fits 63 bits.
"""

from __future__ import annotations

EXPORTS = ("tc_run",)

SMALL = 30_000
"""Scalar operations below which a step is not worth another thread: one takes them some 5 µs."""

WAKE = 400_000
"""The same while workers sleep: to wake one takes 20 µs of the caller's time, and more until it arrives.

Work done alone for this reason is added up, and the workers are woken when there was this much: at worst twice the time
of the better choice.
"""

GRAIN = 10_000
"""Scalar operations that make a chunk worth handing out."""

CHUNKS_PER_THREAD = 4
"""More balance better where threads are disturbed, fewer cost less.  A launch may want fewer: a loop over rows is
faster with more rows at a time."""

PLAN = """
%Plan = type { ptr, i64, ptr, i64, i64 }        ; launches, their count, measure, most parts and most words in a step
%Launch = type { ptr, ptr, i32, i32, i32, i32, i64 }
                ; kernel, words, kernel's number, buffers, sizes; launches of its step, chunks of that for each thread
"""


def emit_launch() -> str:
    """The LLVM IR of `tc_run`, to stand in one module with the pool."""
    return PLAN + TYPES + RUN + STEP + CHUNK


TYPES = """
%Part = type { ptr, ptr, ptr, i64, i64 }        ; kernel, buffers, sizes, units, work
%Job = type { i64, ptr, i64, i64 }              ; count of parts, parts, chunks, work
"""

RUN = """
define void @tc_run(ptr %plan, ptr %externals, ptr %values, ptr %arena) {
entry:
  %all_place = getelementptr %Plan, ptr %plan, i32 0, i32 1
  %measure_place = getelementptr %Plan, ptr %plan, i32 0, i32 2
  %most_parts_place = getelementptr %Plan, ptr %plan, i32 0, i32 3
  %most_words_place = getelementptr %Plan, ptr %plan, i32 0, i32 4
  %launches = load ptr, ptr %plan, align 8
  %all = load i64, ptr %all_place, align 8
  %measure = load ptr, ptr %measure_place, align 8
  %most_parts = load i64, ptr %most_parts_place, align 8
  %most_words = load i64, ptr %most_words_place, align 8
  %parts = alloca %Part, i64 %most_parts, align 8
  %words = alloca i64, i64 %most_words, align 8
  %launches_end = getelementptr %Launch, ptr %launches, i64 %all
  br label %look

look:
  %step = phi ptr [ %launches, %entry ], [ %step_end, %ready ]
  %over = icmp eq ptr %step, %launches_end
  br i1 %over, label %end, label %prepare

prepare:
  %count_place = getelementptr %Launch, ptr %step, i32 0, i32 5
  %count_narrow = load i32, ptr %count_place, align 4
  %count = zext i32 %count_narrow to i64
  %step_end = getelementptr %Launch, ptr %step, i64 %count
  %balance_place = getelementptr %Launch, ptr %step, i32 0, i32 6
  %balance = load i64, ptr %balance_place, align 8
  br label %fill

fill:
  %launch = phi ptr [ %step, %prepare ], [ %launch_next, %fill ]
  %part = phi ptr [ %parts, %prepare ], [ %part_next, %fill ]
  %free = phi ptr [ %words, %prepare ], [ %free_next, %fill ]
  %free_next = call ptr @fill_part(ptr %launch, ptr %part, ptr %free, ptr %externals, ptr %values, ptr %arena)
  call void @measure_part(ptr %launch, ptr %part, ptr %measure)
  %launch_next = getelementptr %Launch, ptr %launch, i64 1
  %part_next = getelementptr %Part, ptr %part, i64 1
  %filled = icmp eq ptr %launch_next, %step_end
  br i1 %filled, label %ready, label %fill

ready:
  call void @run_step(i64 %count, ptr %parts, i64 %balance)
  br label %look

end:
  ret void
}

; Fills `part`, and from `free` on the tables of buffers and sizes it refers to; returns what lies behind them.
define internal ptr @fill_part(ptr %launch, ptr %part, ptr %free, ptr %externals, ptr %values, ptr %arena)
    alwaysinline {
entry:
  %code_place = getelementptr %Launch, ptr %launch, i32 0, i32 1
  %buffers_place = getelementptr %Launch, ptr %launch, i32 0, i32 3
  %sizes_place = getelementptr %Launch, ptr %launch, i32 0, i32 4
  %kernel = load ptr, ptr %launch, align 8
  %code = load ptr, ptr %code_place, align 8
  %buffers = load i32, ptr %buffers_place, align 4
  %sizes = load i32, ptr %sizes_place, align 4
  %size_table = getelementptr ptr, ptr %free, i32 %buffers
  %size_code = getelementptr i32, ptr %code, i32 %buffers
  %behind = getelementptr i64, ptr %size_table, i32 %sizes
  %part_buffers_place = getelementptr %Part, ptr %part, i32 0, i32 1
  %part_sizes_place = getelementptr %Part, ptr %part, i32 0, i32 2
  store ptr %kernel, ptr %part, align 8
  store ptr %free, ptr %part_buffers_place, align 8
  store ptr %size_table, ptr %part_sizes_place, align 8
  br label %more_buffers

more_buffers:
  %b = phi i32 [ 0, %entry ], [ %b_next, %place ]
  %some_buffer = icmp slt i32 %b, %buffers
  br i1 %some_buffer, label %buffer, label %more_sizes
buffer:
  %b_code_place = getelementptr i32, ptr %code, i32 %b
  %b_code = load i32, ptr %b_code_place, align 4
  %is_external = icmp sge i32 %b_code, 0
  br i1 %is_external, label %external, label %inside
external:
  %external_place = getelementptr ptr, ptr %externals, i32 %b_code
  %external_pointer = load ptr, ptr %external_place, align 8
  br label %place
inside:
  %offset_index = xor i32 %b_code, -1
  %offset_place = getelementptr i64, ptr %values, i32 %offset_index
  %offset = load i64, ptr %offset_place, align 8
  %arena_pointer = getelementptr i8, ptr %arena, i64 %offset
  br label %place
place:
  %pointer = phi ptr [ %external_pointer, %external ], [ %arena_pointer, %inside ]
  %b_place = getelementptr ptr, ptr %free, i32 %b
  store ptr %pointer, ptr %b_place, align 8
  %b_next = add i32 %b, 1
  br label %more_buffers

more_sizes:
  %s = phi i32 [ 0, %more_buffers ], [ %s_next, %size ]
  %some_size = icmp slt i32 %s, %sizes
  br i1 %some_size, label %size, label %end
size:
  %s_code_place = getelementptr i32, ptr %size_code, i32 %s
  %s_code = load i32, ptr %s_code_place, align 4
  %value_place = getelementptr i64, ptr %values, i32 %s_code
  %value = load i64, ptr %value_place, align 8
  %s_place = getelementptr i64, ptr %size_table, i32 %s
  store i64 %value, ptr %s_place, align 8
  %s_next = add i32 %s, 1
  br label %more_sizes

end:
  ret ptr %behind
}

define internal void @measure_part(ptr %launch, ptr %part, ptr %measure) alwaysinline {
  %kernel_place = getelementptr %Launch, ptr %launch, i32 0, i32 2
  %sizes_place = getelementptr %Part, ptr %part, i32 0, i32 2
  %units_place = getelementptr %Part, ptr %part, i32 0, i32 3
  %work_place = getelementptr %Part, ptr %part, i32 0, i32 4
  %kernel = load i32, ptr %kernel_place, align 4
  %sizes = load ptr, ptr %sizes_place, align 8
  %measured = call { i64, i64 } %measure(i32 %kernel, ptr %sizes)
  %units = extractvalue { i64, i64 } %measured, 0
  %work = extractvalue { i64, i64 } %measured, 1
  store i64 %units, ptr %units_place, align 8
  store i64 %work, ptr %work_place, align 8
  ret void
}
"""

STEP = f"""
@missed = internal global i64 0, align 128      ; work done alone because workers slept

define internal void @run_step(i64 %count, ptr %parts, i64 %balance) alwaysinline {{
entry:
  %job = alloca %Job, align 8
  br label %sum

sum:
  %i = phi i64 [ 0, %entry ], [ %next, %sum ]
  %units = phi i64 [ 0, %entry ], [ %more_units, %sum ]
  %work = phi i64 [ 0, %entry ], [ %more_work, %sum ]
  %units_place = getelementptr %Part, ptr %parts, i64 %i, i32 3
  %work_place = getelementptr %Part, ptr %parts, i64 %i, i32 4
  %part_units = load i64, ptr %units_place, align 8
  %part_work = load i64, ptr %work_place, align 8
  %more_units = add i64 %units, %part_units
  %more_work = add i64 %work, %part_work
  %next = add i64 %i, 1
  %summing = icmp slt i64 %next, %count
  br i1 %summing, label %sum, label %decide

decide:
  %threads = call i32 @tc_threads()
  %single = icmp slt i32 %threads, 2
  %whole = icmp slt i64 %more_units, 2
  %little = icmp slt i64 %more_work, {SMALL}
  %indivisible = or i1 %single, %whole
  %serial = or i1 %indivisible, %little
  br i1 %serial, label %at_once, label %consider

consider:
  %asleep = call i1 @workers_sleep()
  br i1 %asleep, label %weigh, label %cut
weigh:
  %missed = load atomic i64, ptr @missed monotonic, align 8
  %missing = add i64 %missed, %more_work
  %patient = icmp slt i64 %missing, {WAKE}
  %kept = select i1 %patient, i64 %missing, i64 0
  store atomic i64 %kept, ptr @missed monotonic, align 8
  br i1 %patient, label %at_once, label %cut

at_once:
  %j = phi i64 [ 0, %decide ], [ 0, %weigh ], [ %j_next, %at_once ]
  %part = getelementptr %Part, ptr %parts, i64 %j
  %all_place = getelementptr %Part, ptr %part, i64 0, i32 3
  %all = load i64, ptr %all_place, align 8
  call void @run_units(ptr %part, i64 0, i64 %all)
  %j_next = add i64 %j, 1
  %running = icmp slt i64 %j_next, %count
  br i1 %running, label %at_once, label %end

cut:
  %units_zeros = call i64 @llvm.ctlz.i64(i64 %more_units, i1 false)
  %work_zeros = call i64 @llvm.ctlz.i64(i64 %more_work, i1 false)
  %zeros = add i64 %units_zeros, %work_zeros
  %excess = sub i64 66, %zeros                                          ; bits of units * work past 62
  %shift = call i64 @llvm.smax.i64(i64 %excess, i64 0)
  br label %scale

scale:
  %k = phi i64 [ 0, %cut ], [ %k_next, %scale ]
  %total = phi i64 [ 0, %cut ], [ %more_total, %scale ]
  %k_units_place = getelementptr %Part, ptr %parts, i64 %k, i32 3
  %k_work_place = getelementptr %Part, ptr %parts, i64 %k, i32 4
  %k_units = load i64, ptr %k_units_place, align 8
  %k_work = load i64, ptr %k_work_place, align 8
  %shifted = lshr i64 %k_work, %shift
  %some = call i64 @llvm.smax.i64(i64 %shifted, i64 1)
  %empty = icmp slt i64 %k_units, 1
  %scaled = select i1 %empty, i64 0, i64 %some
  store i64 %scaled, ptr %k_work_place, align 8
  %more_total = add i64 %total, %scaled
  %k_next = add i64 %k, 1
  %scaling = icmp slt i64 %k_next, %count
  br i1 %scaling, label %scale, label %hand_out

hand_out:
  %wide_threads = zext i32 %threads to i64
  %balanced = mul i64 %wide_threads, %balance
  %worthwhile = udiv i64 %more_work, {GRAIN}
  %wanted = call i64 @llvm.smin.i64(i64 %balanced, i64 %worthwhile)
  %chunks = call i64 @llvm.smin.i64(i64 %wanted, i64 %more_units)
  %parts_place = getelementptr %Job, ptr %job, i32 0, i32 1
  %chunks_place = getelementptr %Job, ptr %job, i32 0, i32 2
  %total_place = getelementptr %Job, ptr %job, i32 0, i32 3
  store i64 %count, ptr %job, align 8
  store ptr %parts, ptr %parts_place, align 8
  store i64 %chunks, ptr %chunks_place, align 8
  store i64 %more_total, ptr %total_place, align 8
  call void @tc_parallel(i64 %chunks, ptr @run_chunk, ptr %job)
  br label %end

end:
  ret void
}}
"""

CHUNK = """
define internal void @run_chunk(ptr %job, i64 %chunk) {
entry:
  %parts_place = getelementptr %Job, ptr %job, i32 0, i32 1
  %chunks_place = getelementptr %Job, ptr %job, i32 0, i32 2
  %total_place = getelementptr %Job, ptr %job, i32 0, i32 3
  %count = load i64, ptr %job, align 8
  %parts = load ptr, ptr %parts_place, align 8
  %chunks = load i64, ptr %chunks_place, align 8
  %total = load i64, ptr %total_place, align 8
  %following = add i64 %chunk, 1
  %start_scaled = mul i64 %total, %chunk
  %end_scaled = mul i64 %total, %following
  %start = udiv i64 %start_scaled, %chunks
  %end = udiv i64 %end_scaled, %chunks
  br label %next_part

next_part:
  %i = phi i64 [ 0, %entry ], [ %i_next, %passed ]
  %offset = phi i64 [ 0, %entry ], [ %part_end, %passed ]
  %part = getelementptr %Part, ptr %parts, i64 %i
  %units_place = getelementptr %Part, ptr %part, i64 0, i32 3
  %work_place = getelementptr %Part, ptr %part, i64 0, i32 4
  %work = load i64, ptr %work_place, align 8
  %part_end = add i64 %offset, %work
  %from = call i64 @llvm.smax.i64(i64 %start, i64 %offset)
  %to = call i64 @llvm.smin.i64(i64 %end, i64 %part_end)
  %touched = icmp slt i64 %from, %to
  br i1 %touched, label %run, label %passed

run:
  %units = load i64, ptr %units_place, align 8
  %from_part = sub i64 %from, %offset
  %to_part = sub i64 %to, %offset
  %from_scaled = mul i64 %from_part, %units
  %to_scaled = mul i64 %to_part, %units
  %first = udiv i64 %from_scaled, %work
  %last = udiv i64 %to_scaled, %work
  call void @run_units(ptr %part, i64 %first, i64 %last)
  br label %passed

passed:
  %i_next = add i64 %i, 1
  %more = icmp slt i64 %i_next, %count
  %unfinished = icmp slt i64 %part_end, %end
  %go_on = and i1 %more, %unfinished
  br i1 %go_on, label %next_part, label %stop

stop:
  ret void
}

define internal void @run_units(ptr %part, i64 %first, i64 %last) {
entry:
  %any = icmp slt i64 %first, %last
  br i1 %any, label %run, label %end
run:
  %buffers_place = getelementptr %Part, ptr %part, i64 0, i32 1
  %sizes_place = getelementptr %Part, ptr %part, i64 0, i32 2
  %kernel = load ptr, ptr %part, align 8
  %buffers = load ptr, ptr %buffers_place, align 8
  %sizes = load ptr, ptr %sizes_place, align 8
  call void %kernel(i64 %first, i64 %last, ptr %buffers, ptr %sizes)
  br label %end
end:
  ret void
}
"""
