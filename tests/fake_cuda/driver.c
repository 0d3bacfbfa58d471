/* A libcuda that has no GPU, for tests of what speaks to it.

Memory of the device is memory of the host under other addresses, between guards.  Streams are queues: an operation is
done only when somebody waits for it, and only as far as that asks, so that whatever lacks a wait reads old values.
Kernels are run by a function that the test hands over.  The first fault is kept as a text, for which the test asks. */

#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK, INVALID_VALUE, OUT_OF_MEMORY, NO_DEVICE = 100, INVALID_IMAGE = 200, INVALID_CONTEXT, INVALID_HANDLE = 400,
       NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700, CAPTURE_UNSUPPORTED = 900 };
enum { GUARD = 256, MANY = 4096, PARAMETERS = 64, PATTERN = 0x5c, UNWRITTEN = 0xa5 };
static const uint64_t DEVICE = 1ull << 60;

typedef int Result;
typedef void (*Kernel)(const char *entry, const uint64_t *parameters, int count, unsigned blocks, unsigned threads);

typedef struct { uint64_t address; size_t size; char *raw; } Memory;
typedef struct { char entry[512]; int count, is_loaded; int sizes[PARAMETERS]; } Module;
typedef struct { int ticket, keeps_time; uint64_t done; } Event;
typedef struct Op {
    enum { TO_DEVICE, TO_HOST, ON_DEVICE, LAUNCH, RECORD, WAIT } kind;
    uint64_t to, from;
    size_t count;
    Module module;
    uint64_t parameters[PARAMETERS];
    unsigned blocks, threads;
    int ticket;
    Event *event;
    int number, wait_count, *waits, depth;      /* in a graph: its number, and those of the operations it waits for */
    struct Op *next;
} Op;
typedef struct { Op *first, *last; int count; } Queue;
typedef struct { Queue queue; Queue *captured; Op **ends; int end_count; } Stream;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Memory memory[2][MANY];                  /* of the device, of the host */
enum { STREAMS, EVENTS, GRAPHS, EXECS, MODULES, KINDS };
static void *handles[KINDS][MANY];
static int device_count = 1, version = 13000, major = 9, calls, fail_at, fail_with;
static size_t total_memory = (size_t)1 << 30, used_memory;
static char failed_in[64], fault[512];
static char *tickets;                           /* whether what a ticket was given for is done */
static Stream **ticket_streams;
static int ticket_count;
static Kernel run_kernel;
static int context;                             /* its address is the handle */
static int captures;                            /* of all threads */
static uint64_t now;                            /* microseconds: a launch takes 10, a copy 1, and 1 for each 1,000 bytes */
static __thread int pushed, capturing, mode = 1;

static void blame(const char *text, ...) {
    if (fault[0]) return;
    va_list arguments;
    va_start(arguments, text);
    vsnprintf(fault, sizeof fault, text, arguments);
    va_end(arguments);
}

static Result begin(const char *name, int needs_context) {
    pthread_mutex_lock(&lock);
    if (++calls == fail_at) {
        snprintf(failed_in, sizeof failed_in, "%s", name);
        return fail_with;
    }
    if (needs_context && !pushed) {
        blame("%s without a context", name);
        return INVALID_CONTEXT;
    }
    return OK;
}

static Result end(Result result) {
    pthread_mutex_unlock(&lock);
    return result;
}

#define BEGIN(needs_context) Result failed = begin(__func__, needs_context); if (failed) return end(failed)
/* What ends something has done so even where it tells of a failure: that is one of work before. */
#define ENDS(result) Result failed = begin(__func__, 0), ended = result; return end(failed ? failed : ended)
#define NOT_WHILE_CAPTURING \
    if (capturing && mode != 2) { blame("%s while a graph is recorded", __func__); return end(CAPTURE_UNSUPPORTED); }

static void *keep(int kind, void *handle) {
    for (int i = 0; i < MANY; i++)
        if (!handles[kind][i]) return handles[kind][i] = handle;
    abort();
}

static int is_there(int kind, const void *handle) {
    for (int i = 0; handle && i < MANY; i++)
        if (handles[kind][i] == handle) return 1;
    return 0;
}

static int is_kept(int kind, const void *handle, const char *by) {
    if (is_there(kind, handle)) return 1;
    blame("%s of a handle that is none", by);
    return 0;
}

static void drop(int kind, void *handle) {
    for (int i = 0; i < MANY; i++)
        if (handles[kind][i] == handle) { handles[kind][i] = NULL; break; }
}

static Result discard(int kind, void *handle, const char *by) {
    if (!is_kept(kind, handle, by)) return INVALID_HANDLE;
    if (kind == STREAMS) free(((Stream *)handle)->ends);
    drop(kind, handle);
    free(handle);
    return OK;
}

/* Memory */

static Memory *find(int where, uint64_t address, size_t count) {
    for (int i = 0; i < MANY; i++) {
        Memory *m = &memory[where][i];
        if (m->raw && m->address <= address && address + count <= m->address + m->size) return m;
    }
    return NULL;
}

static Result allocate(int where, uint64_t *address, size_t size) {
    if (!size) return INVALID_VALUE;
    if (where == 0 && used_memory + size > total_memory) return OUT_OF_MEMORY;
    for (int i = 0; i < MANY; i++) {
        Memory *m = &memory[where][i];
        if (m->raw) continue;
        if (posix_memalign((void **)&m->raw, GUARD, size + 2 * GUARD)) abort();
        memset(m->raw, PATTERN, size + 2 * GUARD);
        memset(m->raw + GUARD, UNWRITTEN, size);
        m->size = size;
        m->address = (uint64_t)(m->raw + GUARD) + (where == 0 ? DEVICE : 0);
        *address = m->address;
        if (where == 0) used_memory += size;
        return OK;
    }
    abort();
}

static int touches(const Op *op, const Memory *m) {
    for (int i = 0; op->kind == LAUNCH && i < op->module.count; i++)
        if (op->parameters[i] - m->address < m->size) return 1;
    if (op->kind > ON_DEVICE) return 0;
    return op->to - m->address < m->size || op->from - m->address < m->size;
}

static Result release(int where, uint64_t address) {
    Memory *m = find(where, address, 1);
    if (!m || m->address != address) {
        blame("memory is freed that was never allocated, or twice");
        return INVALID_VALUE;
    }
    for (int i = 0; i < MANY; i++) {
        Stream *stream = handles[STREAMS][i];
        for (Op *op = stream ? stream->queue.first : NULL; op; op = op->next)
            if (touches(op, m)) blame("memory is freed before it is used for the last time");
    }
    for (int i = 0; i < GUARD; i++)
        if (m->raw[i] != PATTERN || m->raw[GUARD + m->size + i] != PATTERN) blame("memory is written beyond its end");
    if (where == 0) used_memory -= m->size;
    free(m->raw);
    m->raw = NULL;
    return OK;
}

/* Streams */

/* What the next operation that is recorded will wait for. */
static void set_ends(Stream *stream, Op **ends, int count) {
    Op **own = malloc((count + 1) * sizeof *own);
    memcpy(own, ends, count * sizeof *own);
    free(stream->ends);
    stream->ends = own;
    stream->end_count = count;
}

static void add(Stream *stream, const Op *op) {
    Queue *queue = stream->captured ? stream->captured : &stream->queue;
    Op *own = malloc(sizeof *own);
    *own = *op;
    own->next = NULL;
    if (stream->captured) {
        own->number = queue->count++;
        own->wait_count = stream->end_count;
        own->waits = malloc((stream->end_count + 1) * sizeof *own->waits);
        for (int i = 0; i < stream->end_count; i++) own->waits[i] = stream->ends[i]->number;
        set_ends(stream, &own, 1);
    }
    if (queue->last) queue->last->next = own; else queue->first = own;
    queue->last = own;
}

static void empty(Queue *queue) {
    while (queue->first) {
        Op *op = queue->first;
        queue->first = op->next;
        free(op->waits);
        free(op);
    }
    queue->last = NULL;
}

static void drain(Stream *stream, int ticket);

static void perform(Op *op) {
    uint64_t to = op->to, from = op->from;
    now += op->kind <= ON_DEVICE ? 1 + op->count / 1000 : op->kind == LAUNCH ? 10 : 0;
    switch (op->kind) {
    case TO_DEVICE: case TO_HOST: case ON_DEVICE:
        if ((op->kind != TO_HOST && !find(0, to, op->count)) || (op->kind != TO_DEVICE && !find(0, from, op->count))) {
            blame("a copy of %zu bytes reaches what is no memory of the device any more", op->count);
            return;
        }
        if (op->kind != TO_HOST) to -= DEVICE;
        if (op->kind != TO_DEVICE) from -= DEVICE;
        memmove((void *)to, (void *)from, op->count);
        return;
    case LAUNCH:
        pthread_mutex_unlock(&lock);        /* it may take Python's lock */
        run_kernel(op->module.entry, op->parameters, op->module.count, op->blocks, op->threads);
        pthread_mutex_lock(&lock);
        return;
    case RECORD:
        if (op->ticket >= 0) tickets[op->ticket] = 1;
        if (is_there(EVENTS, op->event)) op->event->done = now;
        return;
    case WAIT:
        if (op->ticket >= 0 && !tickets[op->ticket]) drain(ticket_streams[op->ticket], op->ticket);
    }
}

static pthread_mutex_t running = PTHREAD_MUTEX_INITIALIZER;
static __thread int depth;

/* Does what a stream waits with, up to a record. */
static void drain(Stream *stream, int ticket) {
    while (stream->queue.first && (ticket < 0 || !tickets[ticket])) {
        Op *op = stream->queue.first;
        stream->queue.first = op->next;
        if (!stream->queue.first) stream->queue.last = NULL;
        perform(op);
        free(op);
    }
}

/* One thread at a time does work, so that nobody passes by an operation that another one is at. */
static void wait_for(Stream *stream, int ticket) {
    if (!depth++) {
        pthread_mutex_unlock(&lock);
        pthread_mutex_lock(&running);
        pthread_mutex_lock(&lock);
    }
    drain(stream, ticket);
    if (!--depth) pthread_mutex_unlock(&running);
}

/* The driver's functions */

Result cuInit(unsigned flags) { BEGIN(0); return end(device_count ? OK : NO_DEVICE); }
Result cuDriverGetVersion(int *found) { BEGIN(0); *found = version; return end(OK); }
Result cuDeviceGetCount(int *count) { BEGIN(0); *count = device_count; return end(OK); }
Result cuDeviceGet(int *device, int ordinal) {
    BEGIN(0);
    *device = ordinal;
    return end(ordinal < device_count ? OK : 101);
}

Result cuDeviceGetName(char *name, int size, int device) { BEGIN(0); snprintf(name, size, "Fake GPU"); return end(OK); }
Result cuDeviceGetAttribute(int *value, int which, int device) {
    BEGIN(0);
    *value = which == 75 ? major : which == 13 ? 1500000 : which == 16 ? 100 : which == 87 ? 2 : 0;
    return end(OK);
}

Result cuDevicePrimaryCtxRetain(void **found, int device) { BEGIN(0); *found = &context; return end(OK); }
Result cuCtxSynchronize(void) {
    BEGIN(1);
    if (captures) { blame("%s while a graph is recorded", __func__); return end(CAPTURE_UNSUPPORTED); }
    for (int i = 0; i < MANY; i++)
        if (handles[STREAMS][i]) wait_for(handles[STREAMS][i], -1);
    return end(OK);
}

Result cuCtxPushCurrent_v2(void *given) {
    BEGIN(0);
    if (given != &context) return end(INVALID_CONTEXT);
    pushed++;
    return end(OK);
}

Result cuCtxPopCurrent_v2(void **found) {
    BEGIN(1);
    pushed--;
    *found = &context;
    return end(OK);
}

Result cuGetErrorName(int code, const char **text) {
    *text = code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : code == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS"
          : code == NO_DEVICE ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_OTHER";
    return OK;
}

Result cuGetErrorString(int code, const char **text) {
    *text = code == OUT_OF_MEMORY ? "out of memory" : "as asked for";
    return OK;
}

Result cuMemGetInfo_v2(size_t *free, size_t *total) {
    BEGIN(1);
    *free = total_memory - used_memory;
    *total = total_memory;
    return end(OK);
}

Result cuMemAlloc_v2(uint64_t *address, size_t size) {
    BEGIN(1);
    NOT_WHILE_CAPTURING
    return end(allocate(0, address, size));
}

Result cuMemFree_v2(uint64_t address) { ENDS(release(0, address)); }
Result cuMemHostAlloc(void **found, size_t size, unsigned flags) {
    BEGIN(1);
    NOT_WHILE_CAPTURING
    return end(allocate(1, (uint64_t *)found, size));
}
Result cuMemFreeHost(void *address) { ENDS(release(1, (uint64_t)address)); }

static Result copy(int kind, uint64_t to, uint64_t from, size_t count, Stream *stream, const char *name) {
    if (!is_kept(STREAMS, stream, name)) return INVALID_HANDLE;
    if ((kind != TO_HOST && !find(0, to, count)) || (kind != TO_DEVICE && !find(0, from, count))) {
        blame("%s reaches what is no memory of the device", name);
        return INVALID_VALUE;
    }
    if (kind != ON_DEVICE && stream->captured && !find(1, kind == TO_HOST ? to : from, count))
        blame("%s is recorded of memory that is not pinned", name);
    Op op = {.kind = kind, .to = to, .from = from, .count = count};
    add(stream, &op);
    return OK;
}

Result cuMemcpyHtoDAsync_v2(uint64_t to, void *from, size_t count, Stream *stream) {
    BEGIN(1);
    return end(copy(TO_DEVICE, to, (uint64_t)from, count, stream, __func__));
}
Result cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t count, Stream *stream) {
    BEGIN(1);
    return end(copy(TO_HOST, (uint64_t)to, from, count, stream, __func__));
}
Result cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t count, Stream *stream) {
    BEGIN(1);
    return end(copy(ON_DEVICE, to, from, count, stream, __func__));
}

Result cuPointerGetAttribute(int *value, int which, uint64_t address) {
    BEGIN(0);
    *value = 0;
    return end(which == 9 && find(0, address, 1) ? OK : INVALID_VALUE);
}

Result cuStreamCreate(Stream **stream, unsigned flags) {
    BEGIN(1);
    *stream = keep(STREAMS, calloc(1, sizeof(Stream)));
    return end(OK);
}

Result cuStreamDestroy_v2(Stream *stream) { ENDS(discard(STREAMS, stream, __func__)); }

Result cuStreamSynchronize(Stream *stream) {
    BEGIN(0);
    if (!is_kept(STREAMS, stream, __func__)) return end(INVALID_HANDLE);
    NOT_WHILE_CAPTURING
    wait_for(stream, -1);
    return end(OK);
}

Result cuStreamWaitEvent(Stream *stream, Event *event, unsigned flags) {
    BEGIN(0);
    NOT_WHILE_CAPTURING
    if (!is_kept(EVENTS, event, __func__)) return end(INVALID_HANDLE);
    if ((uint64_t)stream <= 2) return end(OK);          /* nothing of ours runs there */
    if (!is_kept(STREAMS, stream, __func__)) return end(INVALID_HANDLE);
    Op op = {.kind = WAIT, .ticket = event->ticket};
    add(stream, &op);
    return end(OK);
}

Result cuEventCreate(Event **event, unsigned flags) {
    BEGIN(1);
    *event = keep(EVENTS, malloc(sizeof(Event)));
    **event = (Event){.ticket = -1, .keeps_time = !(flags & 2)};
    return end(OK);
}

Result cuEventDestroy_v2(Event *event) { ENDS(discard(EVENTS, event, __func__)); }

Result cuEventRecord(Event *event, Stream *stream) {
    BEGIN(0);
    NOT_WHILE_CAPTURING
    if (!is_kept(EVENTS, event, __func__)) return end(INVALID_HANDLE);
    if ((uint64_t)stream <= 2) return end(OK);          /* nothing of ours runs there */
    if (!is_kept(STREAMS, stream, __func__)) return end(INVALID_HANDLE);
    tickets = realloc(tickets, ticket_count + 1);
    ticket_streams = realloc(ticket_streams, (ticket_count + 1) * sizeof *ticket_streams);
    tickets[ticket_count] = 0;
    ticket_streams[ticket_count] = stream;
    event->ticket = ticket_count++;
    event->done = 0;
    Op op = {.kind = RECORD, .ticket = event->ticket, .event = event};
    add(stream, &op);
    return end(OK);
}

Result cuEventQuery(Event *event) {
    BEGIN(0);
    if (!is_kept(EVENTS, event, __func__)) return end(INVALID_HANDLE);
    return end(event->ticket < 0 || tickets[event->ticket] ? OK : NOT_READY);
}

Result cuEventSynchronize(Event *event) {
    BEGIN(0);
    NOT_WHILE_CAPTURING
    if (!is_kept(EVENTS, event, __func__)) return end(INVALID_HANDLE);
    if (event->ticket >= 0 && !tickets[event->ticket]) wait_for(ticket_streams[event->ticket], event->ticket);
    return end(OK);
}

/* Within a graph that is recorded, where each run of it records the event. */
Result cuEventRecordWithFlags(Event *event, Stream *stream, unsigned flags) {
    BEGIN(0);
    if (!is_kept(EVENTS, event, __func__) || !is_kept(STREAMS, stream, __func__)) return end(INVALID_HANDLE);
    if (flags != 1 || !stream->captured) {
        blame("%s with flags %u, %s", __func__, flags, stream->captured ? "recorded" : "not recorded");
        return end(INVALID_VALUE);
    }
    event->done = 0;
    Op op = {.kind = RECORD, .ticket = -1, .event = event};
    add(stream, &op);
    return end(OK);
}

Result cuEventElapsedTime_v2(float *milliseconds, Event *from, Event *to) {
    BEGIN(0);
    if (!is_kept(EVENTS, from, __func__) || !is_kept(EVENTS, to, __func__)) return end(INVALID_HANDLE);
    if (!from->keeps_time || !to->keeps_time || !from->done || !to->done) {
        blame("%s of events that tell no time, or not yet", __func__);
        return end(INVALID_HANDLE);
    }
    *milliseconds = (to->done - from->done) / 1e3f;
    return end(OK);
}


/* Graphs */

Result cuStreamBeginCapture_v2(Stream *stream, int mode) {
    BEGIN(0);
    if (!is_kept(STREAMS, stream, __func__) || stream->captured) return end(INVALID_HANDLE);
    stream->captured = calloc(1, sizeof(Queue));
    set_ends(stream, NULL, 0);
    capturing++;
    captures++;
    return end(OK);
}

Result cuStreamEndCapture(Stream *stream, Queue **graph) {
    Result failed = begin(__func__, 0);
    *graph = NULL;
    if (!is_kept(STREAMS, stream, __func__) || !stream->captured) return end(failed ? failed : INVALID_VALUE);
    if (failed) {
        empty(stream->captured);
        free(stream->captured);
    } else
        *graph = keep(GRAPHS, stream->captured);
    stream->captured = NULL;
    capturing--;
    captures--;
    return end(failed);
}

Result cuStreamGetCaptureInfo_v3(Stream *stream, int *status, uint64_t *id, Queue **graph, Op ***ends, void **data,
                                 size_t *count) {
    BEGIN(0);
    if (!is_kept(STREAMS, stream, __func__)) return end(INVALID_HANDLE);
    *status = stream->captured != NULL;
    if (!stream->captured) return end(OK);
    *ends = stream->ends;
    *count = stream->end_count;
    return end(OK);
}

Result cuStreamUpdateCaptureDependencies_v2(Stream *stream, Op **nodes, void *data, size_t count, unsigned flags) {
    BEGIN(0);
    if (!is_kept(STREAMS, stream, __func__) || !stream->captured || flags != 1) return end(INVALID_VALUE);
    for (size_t i = 0; i < count; i++) {
        Op *op = stream->captured->first;
        while (op && op != nodes[i]) op = op->next;
        if (!op) blame("%s of a node that is none of this graph", __func__);
    }
    set_ends(stream, nodes, count);
    return end(OK);
}

Result cuGraphInstantiateWithFlags(Queue **executable, Queue *graph, unsigned long long flags) {
    BEGIN(1);
    if (!is_kept(GRAPHS, graph, __func__)) return end(INVALID_HANDLE);
    Stream own = {0};
    Op **ops = malloc((graph->count + 1) * sizeof *ops);
    char *is_done = calloc(graph->count + 1, 1);
    for (Op *op = graph->first; op; op = op->next) ops[op->number] = op;
    for (int left = graph->count; left; left--) {   /* of what may come next always the last, so that a wait that lacks shows */
        int next = graph->count, waits = 1;
        while (waits) {
            Op *op = ops[--next];
            waits = is_done[next];
            for (int i = 0; i < op->wait_count && !waits; i++) waits = !is_done[op->waits[i]];
        }
        is_done[next] = ops[next]->depth = 1;
        for (int i = 0; i < ops[next]->wait_count; i++)
            if (ops[ops[next]->waits[i]]->depth >= ops[next]->depth) ops[next]->depth = ops[ops[next]->waits[i]]->depth + 1;
        Op copy = *ops[next];
        copy.waits = NULL;
        add(&own, &copy);
    }
    free(is_done);
    free(ops);
    *executable = keep(EXECS, malloc(sizeof(Queue)));
    **executable = own.queue;
    return end(OK);
}

Result cuGraphLaunch(Queue *executable, Stream *stream) {
    BEGIN(0);
    if (!is_kept(EXECS, executable, __func__) || !is_kept(STREAMS, stream, __func__)) return end(INVALID_HANDLE);
    for (Op *op = executable->first; op; op = op->next) add(stream, op);
    return end(OK);
}

static Result destroy(int kind, Queue *graph, const char *name) {
    if (is_kept(kind, graph, name)) empty(graph);
    return discard(kind, graph, name);
}

Result cuGraphDestroy(Queue *graph) { ENDS(destroy(GRAPHS, graph, __func__)); }
Result cuGraphExecDestroy(Queue *executable) { ENDS(destroy(EXECS, executable, __func__)); }

Result cuThreadExchangeStreamCaptureMode(int *given) {
    BEGIN(0);
    int before = mode;
    mode = *given;
    *given = before;
    return end(OK);
}

/* Kernels: an image is the text `FAKE entry count size …` */

Result cuModuleLoadData(Module **module, const char *image) {
    BEGIN(1);
    Module read = {0};
    int at;
    if (sscanf(image, "FAKE %511s %d%n", read.entry, &read.count, &at) != 2) return end(INVALID_IMAGE);
    for (int i = 0, more; i < read.count; i++, at += more) sscanf(image + at, "%d%n", &read.sizes[i], &more);
    *module = keep(MODULES, malloc(sizeof(Module)));
    **module = read;
    return end(OK);
}

Result cuModuleGetFunction(Module **function, Module *module, const char *name) {
    BEGIN(1);
    if (!is_kept(MODULES, module, __func__)) return end(INVALID_HANDLE);
    *function = module;
    return end(strcmp(name, module->entry) ? NOT_FOUND : OK);
}

Result cuFuncLoad(Module *function) {
    BEGIN(1);
    NOT_WHILE_CAPTURING
    if (!is_kept(MODULES, function, __func__)) return end(INVALID_HANDLE);
    function->is_loaded = 1;
    return end(OK);
}

Result cuModuleUnload(Module *module) { ENDS(discard(MODULES, module, __func__)); }

Result cuLaunchKernel(Module *function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned ty, unsigned tz,
                      unsigned shared, Stream *stream, void **parameters, void **extra) {
    BEGIN(1);
    if (!is_kept(MODULES, function, __func__) || !is_kept(STREAMS, stream, __func__)) return end(INVALID_HANDLE);
    if (stream->captured && !function->is_loaded) blame("%s is recorded of a kernel that is not loaded yet", __func__);
    if (!x || x > 0x7fffffff || y * z * ty * tz != 1 || !threads || threads > 1024) return end(INVALID_VALUE);
    Op op = {.kind = LAUNCH, .module = *function, .blocks = x, .threads = threads};
    for (int i = 0; i < function->count; i++) memcpy(&op.parameters[i], parameters[i], function->sizes[i]);
    add(stream, &op);
    return end(OK);
}

/* What tests ask */

void fake_kernel(Kernel kernel) { run_kernel = kernel; }
void fake_devices(int count, int driver_version, int capability) {
    device_count = count;
    version = driver_version;
    major = capability;
}

void fake_memory(size_t total) { total_memory = total; }
void fake_fail(int call, int with) { calls = 0; failed_in[0] = 0; fail_at = call; fail_with = with; }
const char *fake_failed(void) { return failed_in; }
int fake_calls(void) { return calls; }
const char *fake_fault(void) { return fault; }

/* Of how many pieces all graphs are made, and how many of these wait for one another in the longest row. */
void fake_graphs(int *nodes, int *depth) {
    *nodes = *depth = 0;
    for (int i = 0; i < MANY; i++)
        for (Op *op = handles[EXECS][i] ? ((Queue *)handles[EXECS][i])->first : NULL; op; op = op->next) {
            ++*nodes;
            if (op->depth > *depth) *depth = op->depth;
        }
}

/* How many things of a kind there are: memory of the device, of the host, then as the handles. */
int fake_count(int kind) {
    int count = 0;
    for (int i = 0; i < MANY; i++) count += kind < 2 ? memory[kind][i].raw != NULL : handles[kind - 2][i] != NULL;
    return count;
}

/* Where the host finds memory of the device; 0 where there is none. */
uint64_t fake_where(uint64_t address, size_t count) { return find(0, address, count) ? address - DEVICE : 0; }
