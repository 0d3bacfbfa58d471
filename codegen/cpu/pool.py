"""The thread pool, in LLVM IR: no Python, no lock held while work runs, 0.2 µs to start a parallel region.

    void tc_parallel(i64 n, void task(ptr context, i64 i), ptr context)    task(context, i) for every i < n
    i32  tc_threads()                                                      how many threads share a region
    void tc_set_threads(i32 threads, i32 spin)                             and how long an idle one stays awake
    void tc_forked()                                                       in a child process, which has no workers
    void tc_pause(i32 times)                                               what an idle one does, to be timed
    i1   workers_sleep()                                                   whether a region would wake some; internal

One caller at a time owns the pool.  Whoever finds it owned, another thread or a task of the region itself, does
its work alone, so nothing ever waits for the pool.

Each thread has a share of a region's tasks, the same of every region, so that it finds in its cache what it wrote
there; when it is through it helps with the shares of others.  Tasks are taken by adding one to the share's word of
`tickets`, which holds the end of the share beside the next task.  It only gives out a valid ticket while its region is
open: a worker that comes late either finds the tickets used up, or takes one of the next region, whose task it then
reads.  So nobody waits for a worker that has nothing to do.

Workers watch `generation` for a while, then sleep on it; those past the number of threads sleep on `limit`.
"""

from __future__ import annotations

from tensorc.codegen.cpu.target import Target
from tensorc.errors import InternalError
from tensorc.settings import MOST_THREADS

EXPORTS = ("tc_parallel", "tc_threads", "tc_set_threads", "tc_forked", "tc_pause")

FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98}

PAUSE = {
    "x86_64": "call void @llvm.x86.sse2.pause()",
    "aarch64": "call void @llvm.aarch64.isb(i32 15)",
}

STACK = 4 << 20  # bytes for a worker; systems give between 128 KiB and 8 MiB


def can_thread(target: Target) -> bool:
    """Whether there are workers on this system; elsewhere every region runs on its caller."""
    return target.system in ("darwin", "windows") or (target.system == "linux" and target.architecture in FUTEX)


def emit_pool(target: Target) -> str:
    """The pool's LLVM IR; it defines EXPORTS."""
    if not can_thread(target):
        return SERIAL

    pause = PAUSE.get(target.architecture, "; no instruction to pause")
    text = STATE + CALLER + WORKER + SPIN + SETTINGS + _system(target)
    return text.replace("PAUSE", pause).replace("SHARES_BYTES", str(MOST_THREADS * 128))


def _system(target: Target) -> str:
    """How a thread starts, sleeps on a word, and wakes those who sleep on it."""
    match target.system:
        case "linux":
            return POSIX_THREADS + LINUX_SLEEP.replace("FUTEX", str(FUTEX[target.architecture]))
        case "darwin":
            return POSIX_THREADS + DARWIN_SLEEP
        case "windows":
            return WINDOWS
    raise InternalError(f"no threads on {target.triple}")


STATE = f"""
%Region = type {{ ptr, ptr }}

@owned      = internal global i32 0, align 128                        ; 1 while a caller owns the pool
@region     = internal global %Region zeroinitializer, align 128      ; its task and context
@tickets    = internal global [{MOST_THREADS} x [16 x i64]] zeroinitializer, align 128
                                                                      ; of each share: its end << 32 | its next task
@shares     = internal global i32 1, align 128                        ; how many there are
@all        = internal global i32 0                                   ; tasks of the region
@done       = internal global i32 0, align 128                        ; tasks finished
@waiting    = internal global i32 0, align 128                        ; 1 while the caller sleeps on done
@generation = internal global i32 0, align 128                        ; counts regions
@sleepers   = internal global i32 0, align 128                        ; workers asleep on generation
@limit      = internal global i32 1, align 128                        ; threads that may work, the caller's included
@spin       = internal global i32 0                                   ; pauses before a thread goes to sleep
@started    = internal global i32 0                                   ; workers alive; written by the owner only
"""

CALLER = """
define void @tc_parallel(i64 %n, ptr %task, ptr %context) {
entry:
  %threads = load atomic i32, ptr @limit monotonic, align 4
  %alone = icmp slt i32 %threads, 2
  %few = icmp slt i64 %n, 2
  %many = icmp sgt i64 %n, 1073741824
  %unfit = or i1 %few, %many
  %serial = or i1 %alone, %unfit
  br i1 %serial, label %by_itself, label %claim

claim:
  %claimed = cmpxchg ptr @owned, i32 0, i32 1 acquire monotonic
  %mine = extractvalue { i32, i1 } %claimed, 1
  br i1 %mine, label %open, label %by_itself

by_itself:
  call void @run_alone(i64 %n, ptr %task, ptr %context)
  ret void

open:
  %count = trunc i64 %n to i32
  %helpers = sub i32 %threads, 1
  call void @start_workers(i32 %helpers)
  %context_place = getelementptr %Region, ptr @region, i32 0, i32 1
  store atomic ptr %task, ptr @region monotonic, align 8
  store atomic ptr %context, ptr %context_place monotonic, align 8
  store atomic i32 0, ptr @done monotonic, align 4
  %shares = call i32 @llvm.smin.i32(i32 %count, i32 %threads)
  store atomic i32 %shares, ptr @shares monotonic, align 4
  store atomic i32 %count, ptr @all monotonic, align 4
  br label %share_out
share_out:
  %share = phi i32 [ 0, %open ], [ %share_next, %share_out ]
  %start = phi i32 [ 0, %open ], [ %stop, %share_out ]
  %share_next = add i32 %share, 1
  %wide_next = zext i32 %share_next to i64
  %wide_shares = zext i32 %shares to i64
  %stop_scaled = mul i64 %n, %wide_next
  %wide_stop = udiv i64 %stop_scaled, %wide_shares
  %stop = trunc i64 %wide_stop to i32
  %stop_high = shl i64 %wide_stop, 32
  %wide_start = zext i32 %start to i64
  %word = or i64 %stop_high, %wide_start
  %word_place = getelementptr [16 x i64], ptr @tickets, i32 %share
  store atomic i64 %word, ptr %word_place release, align 8
  %sharing = icmp slt i32 %share_next, %shares
  br i1 %sharing, label %share_out, label %announced

announced:
  %before = atomicrmw add ptr @generation, i32 1 seq_cst
  %asleep = load atomic i32, ptr @sleepers seq_cst, align 4
  %some_sleep = icmp sgt i32 %asleep, 0
  br i1 %some_sleep, label %call_them, label %take_part

call_them:
  %others = sub i32 %count, 1
  %needed = call i32 @llvm.smin.i32(i32 %others, i32 %helpers)
  call void @wake(ptr @generation, i32 %needed)
  br label %take_part

take_part:
  call void @work(i32 0)
  call void @wait_until_done(i32 %count)
  store atomic i32 0, ptr @owned release, align 4
  ret void
}

define internal void @run_alone(i64 %n, ptr %task, ptr %context) {
entry:
  %any = icmp sgt i64 %n, 0
  br i1 %any, label %next, label %end
next:
  %i = phi i64 [ 0, %entry ], [ %following, %next ]
  call void %task(ptr %context, i64 %i)
  %following = add i64 %i, 1
  %more = icmp slt i64 %following, %n
  br i1 %more, label %next, label %end
end:
  ret void
}

define internal void @wait_until_done(i32 %count) alwaysinline {
entry:
  %spin = load atomic i32, ptr @spin monotonic, align 4
  br label %watch
watch:
  %left = phi i32 [ %spin, %entry ], [ %less, %pause ]
  %seen = load atomic i32, ptr @done acquire, align 4
  %finished = icmp eq i32 %seen, %count
  br i1 %finished, label %end, label %still
still:
  %patient = icmp sgt i32 %left, 0
  br i1 %patient, label %pause, label %announce
pause:
  call void @pause(i32 %left)
  %less = sub i32 %left, 1
  br label %watch

announce:
  store atomic i32 1, ptr @waiting seq_cst, align 4
  br label %check
check:
  %now = load atomic i32, ptr @done seq_cst, align 4
  %over = icmp eq i32 %now, %count
  br i1 %over, label %withdraw, label %sleep
sleep:
  call void @sleep_while(ptr @done, i32 %now)
  br label %check
withdraw:
  store atomic i32 0, ptr @waiting monotonic, align 4
  br label %end
end:
  ret void
}

define internal void @start_workers(i32 %wanted) alwaysinline {
entry:
  br label %check
check:
  %alive = load i32, ptr @started, align 4
  %enough = icmp sge i32 %alive, %wanted
  br i1 %enough, label %end, label %start
start:
  %number = add i32 %alive, 1
  %ok = call i1 @start_thread(i32 %number)
  %counted = select i1 %ok, i32 %number, i32 2147483647     ; refused: never asked again
  store i32 %counted, ptr @started, align 4
  br label %check
end:
  ret void
}
"""

WORKER = """
define internal void @work(i32 %number) {
entry:
  %shares = load atomic i32, ptr @shares monotonic, align 4
  %own = urem i32 %number, %shares
  br label %look
look:
  %share = phi i32 [ %own, %entry ], [ %following, %used_up ]
  %left = phi i32 [ %shares, %entry ], [ %fewer, %used_up ]
  %tickets = getelementptr [16 x i64], ptr @tickets, i32 %share
  br label %peek
peek:
  %found = load atomic i64, ptr %tickets monotonic, align 8
  %some = call i1 @is_valid(i64 %found)
  br i1 %some, label %take, label %used_up
take:
  %ticket = atomicrmw add ptr %tickets, i64 1 seq_cst
  %valid = call i1 @is_valid(i64 %ticket)
  br i1 %valid, label %run, label %used_up
used_up:
  %fewer = sub i32 %left, 1
  %after = add i32 %share, 1
  %at_end = icmp eq i32 %after, %shares
  %following = select i1 %at_end, i32 0, i32 %after
  %others = icmp sgt i32 %fewer, 0
  br i1 %others, label %look, label %end
run:
  %i = and i64 %ticket, 4294967295
  %context_place = getelementptr %Region, ptr @region, i32 0, i32 1
  %task = load atomic ptr, ptr @region monotonic, align 8
  %context = load atomic ptr, ptr %context_place monotonic, align 8
  call void %task(ptr %context, i64 %i)
  %count = load atomic i32, ptr @all monotonic, align 4         ; of this region, which ends with its last task
  %before = atomicrmw add ptr @done, i32 1 seq_cst
  %finished = add i32 %before, 1
  %last = icmp eq i32 %finished, %count
  br i1 %last, label %tell, label %peek
tell:
  %caller_sleeps = load atomic i32, ptr @waiting seq_cst, align 4
  %must_wake = icmp ne i32 %caller_sleeps, 0
  br i1 %must_wake, label %wake_caller, label %end
wake_caller:
  call void @wake(ptr @done, i32 1)
  br label %end
end:
  ret void
}

define internal i1 @is_valid(i64 %ticket) alwaysinline {
  %next = and i64 %ticket, 4294967295
  %stop = lshr i64 %ticket, 32
  %valid = icmp ult i64 %next, %stop
  ret i1 %valid
}

define internal ptr @worker(ptr %argument) {
entry:
  %wide = ptrtoint ptr %argument to i64
  %number = trunc i64 %wide to i32
  br label %look
look:
  %limit = load atomic i32, ptr @limit acquire, align 4
  %surplus = icmp sge i32 %number, %limit
  br i1 %surplus, label %park, label %help
park:
  call void @sleep_while(ptr @limit, i32 %limit)
  br label %look

help:
  %known = load atomic i32, ptr @generation acquire, align 4
  call void @work(i32 %number)
  %spin = load atomic i32, ptr @spin monotonic, align 4
  br label %watch
watch:
  %left = phi i32 [ %spin, %help ], [ %less, %pause ]
  %current = load atomic i32, ptr @generation acquire, align 4
  %news = icmp ne i32 %current, %known
  br i1 %news, label %look, label %still
still:
  %patient = icmp sgt i32 %left, 0
  br i1 %patient, label %pause, label %sleep
pause:
  call void @pause(i32 %left)
  %less = sub i32 %left, 1
  br label %watch

sleep:
  %more = atomicrmw add ptr @sleepers, i32 1 seq_cst
  call void @sleep_while(ptr @generation, i32 %known)
  %fewer = atomicrmw sub ptr @sleepers, i32 1 seq_cst
  br label %look
}
"""

SPIN = """
; Every so often lets another thread have the processor: it may be the one that is waited for.
define internal void @pause(i32 %left) alwaysinline {
entry:
  PAUSE
  %low = and i32 %left, 63
  %due = icmp eq i32 %low, 0
  br i1 %due, label %yield, label %end
yield:
  call void @give_way()
  br label %end
end:
  ret void
}
"""

SETTINGS = """
define i32 @tc_threads() {
  %threads = load atomic i32, ptr @limit monotonic, align 4
  ret i32 %threads
}

define internal i1 @workers_sleep() alwaysinline {
  %sleepers = load atomic i32, ptr @sleepers monotonic, align 4
  %some = icmp sgt i32 %sleepers, 0
  ret i1 %some
}

define void @tc_set_threads(i32 %threads, i32 %spin) {
  store atomic i32 %spin, ptr @spin monotonic, align 4
  store atomic i32 %threads, ptr @limit seq_cst, align 4
  %before = atomicrmw add ptr @generation, i32 1 seq_cst
  call void @wake(ptr @generation, i32 2147483647)          ; those now past the limit go to sleep on it
  call void @wake(ptr @limit, i32 2147483647)
  ret void
}

define void @tc_pause(i32 %times) {
entry:
  br label %next
next:
  %left = phi i32 [ %times, %entry ], [ %less, %next ]
  PAUSE
  %less = sub i32 %left, 1
  %more = icmp sgt i32 %less, 0
  br i1 %more, label %next, label %end
end:
  ret void
}

define void @tc_forked() {
  store i32 0, ptr @owned
  call void @llvm.memset.p0.i64(ptr @tickets, i8 0, i64 SHARES_BYTES, i1 false)
  store i32 0, ptr @waiting
  store i32 0, ptr @sleepers
  store i32 0, ptr @started
  ret void
}
"""

POSIX_THREADS = f"""
declare i32 @pthread_attr_init(ptr)
declare i32 @pthread_attr_setstacksize(ptr, i64)
declare i32 @pthread_attr_destroy(ptr)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(ptr)

define internal i1 @start_thread(i32 %number) alwaysinline {{
entry:
  %attributes = alloca [128 x i8], align 16
  %place = alloca ptr, align 8
  %wide = zext i32 %number to i64
  %argument = inttoptr i64 %wide to ptr
  %initialised = call i32 @pthread_attr_init(ptr %attributes)
  %sized = call i32 @pthread_attr_setstacksize(ptr %attributes, i64 {STACK})
  %failure = call i32 @pthread_create(ptr %place, ptr %attributes, ptr @worker, ptr %argument)
  %destroyed = call i32 @pthread_attr_destroy(ptr %attributes)
  %ok = icmp eq i32 %failure, 0
  br i1 %ok, label %detach, label %end
detach:
  %thread = load ptr, ptr %place, align 8
  %detached = call i32 @pthread_detach(ptr %thread)
  br label %end
end:
  ret i1 %ok
}}
"""

LINUX_SLEEP = """
declare i32 @sched_yield()
declare i64 @syscall(i64, ...)

define internal void @give_way() alwaysinline {
  %done = call i32 @sched_yield()
  ret void
}

define internal void @sleep_while(ptr %word, i32 %value) alwaysinline {
  %woken = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i64 128, i32 %value, ptr null)      ; FUTEX_WAIT_PRIVATE
  ret void
}

define internal void @wake(ptr %word, i32 %count) alwaysinline {
  %woken = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i64 129, i32 %count)                ; FUTEX_WAKE_PRIVATE
  ret void
}
"""

DARWIN_SLEEP = """
declare i32 @__ulock_wait(i32, ptr, i64, i32)
declare i32 @__ulock_wake(i32, ptr, i64)
declare i32 @sched_yield()

define internal void @give_way() alwaysinline {
  %done = call i32 @sched_yield()
  ret void
}

define internal void @sleep_while(ptr %word, i32 %value) alwaysinline {
  %wide = zext i32 %value to i64
  %woken = call i32 @__ulock_wait(i32 1, ptr %word, i64 %wide, i32 0)                             ; UL_COMPARE_AND_WAIT
  ret void
}

define internal void @wake(ptr %word, i32 %count) alwaysinline {
  %woken = call i32 @__ulock_wake(i32 257, ptr %word, i64 0)                                      ; …, ULF_WAKE_ALL
  ret void
}
"""

WINDOWS = f"""
declare ptr @CreateThread(ptr, i64, ptr, ptr, i32, ptr)
declare i32 @CloseHandle(ptr)
declare i32 @WaitOnAddress(ptr, ptr, i64, i32)
declare void @WakeByAddressAll(ptr)
declare i32 @SwitchToThread()

define internal i1 @start_thread(i32 %number) alwaysinline {{
entry:
  %wide = zext i32 %number to i64
  %argument = inttoptr i64 %wide to ptr
  %thread = call ptr @CreateThread(ptr null, i64 {STACK}, ptr @worker, ptr %argument, i32 0, ptr null)
  %ok = icmp ne ptr %thread, null
  br i1 %ok, label %detach, label %end
detach:
  %closed = call i32 @CloseHandle(ptr %thread)
  br label %end
end:
  ret i1 %ok
}}

define internal void @give_way() alwaysinline {{
  %done = call i32 @SwitchToThread()
  ret void
}}

define internal void @sleep_while(ptr %word, i32 %value) alwaysinline {{
  %expected = alloca i32, align 4
  store i32 %value, ptr %expected, align 4
  %woken = call i32 @WaitOnAddress(ptr %word, ptr %expected, i64 4, i32 -1)
  ret void
}}

define internal void @wake(ptr %word, i32 %count) alwaysinline {{
  call void @WakeByAddressAll(ptr %word)
  ret void
}}
"""

SERIAL = """
define void @tc_parallel(i64 %n, ptr %task, ptr %context) {
entry:
  %any = icmp sgt i64 %n, 0
  br i1 %any, label %next, label %end
next:
  %i = phi i64 [ 0, %entry ], [ %following, %next ]
  call void %task(ptr %context, i64 %i)
  %following = add i64 %i, 1
  %more = icmp slt i64 %following, %n
  br i1 %more, label %next, label %end
end:
  ret void
}

define i32 @tc_threads() {
  ret i32 1
}

define internal i1 @workers_sleep() alwaysinline {
  ret i1 false
}

define void @tc_set_threads(i32 %threads, i32 %spin) {
  ret void
}

define void @tc_forked() {
  ret void
}

define void @tc_pause(i32 %times) {
  ret void
}
"""
