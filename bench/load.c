/* The clients of the benchmark: N connections, each with one request on the way at a time.
 *
 *   load PORT CONNECTIONS SECONDS EACH GRACE CHUNKS REQUEST
 *
 * The file REQUEST holds the bytes of one HTTP/1.1 request, sent again and again. Connections are opened a millisecond
 * apart. A connection asks until SECONDS are over or it has had EACH answers (0: no bound); then what is on the way may
 * still arrive, for GRACE seconds more, so that what was asked and what was answered can be counted to the last one.
 * CHUNKS is how many stamped chunks (see upstream.c) make a complete stream; 0: the answers are plain.
 * Prints one line of JSON; the first answer that was not as it should be goes to stderr.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 16384, READ = 65536, EVENTS = 256, STAMP = 21, MAX_BROKEN = 10000 };
enum Part { IN_HEAD, IN_LENGTH, IN_CHUNK_SIZE, IN_CHUNK, AFTER_CHUNK, IN_TRAILER, UNTIL_CLOSE, ENDED };

typedef struct {
    int fd;
    bool asking, connected, closes, done_seen;
    enum Part part;
    int status;
    long left;             /* bytes of this chunk or body still to come */
    long chunks, answers;  /* of this answer; of this connection */
    int64_t asked;
    size_t head, tail;     /* bytes held of the head or of a chunk's line; of the body's end, for stamps cut in two */
    char line[HEAD + 1], kept[STAMP];
} Client;

typedef struct {
    float *values;
    size_t count, room;
} Samples;

static int port, epoll;
static long expected_chunks;
static char request[65536];
static size_t request_length;
static int asking;
static long answers, bad, broken, chunks, connects;
static Samples latency, first, age;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void add(Samples *s, int64_t ns) {
    if (s->count == s->room) {
        s->room = s->room ? s->room * 2 : 65536;
        s->values = realloc(s->values, s->room * sizeof *s->values);
        if (!s->values) exit(1);
    }
    s->values[s->count++] = ns / 1e6;
}

static int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void print_samples(const char *name, Samples *s) {
    if (!s->count) return;
    qsort(s->values, s->count, sizeof *s->values, by_size);
    printf(",\"%s_p50\":%.4f,\"%s_p99\":%.4f,\"%s_max\":%.4f", name, s->values[s->count / 2], name,
           s->values[s->count * 99 / 100], name, s->values[s->count - 1]);
}

static void ask(Client *c) {
    c->part = IN_HEAD;
    c->status = 0;
    c->chunks = 0;
    c->head = c->tail = 0;
    c->closes = c->done_seen = false;
    c->asked = now();
    /* A request is smaller than an empty socket's buffer; one that does not fit ends as broken. */
    if (send(c->fd, request, request_length, MSG_NOSIGNAL) != (ssize_t)request_length) shutdown(c->fd, SHUT_RDWR);
}

static void dial(Client *c) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) {
        perror("load: socket");
        exit(1);
    }
    c->connected = false;
    c->part = IN_HEAD;
    c->asked = now();
    connects++;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event); /* a refusal shows at the first read or write */
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) shutdown(c->fd, SHUT_RDWR);
}

static void on_connected(Client *c) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
    c->connected = true;
    int64_t since = c->asked;
    ask(c);
    c->asked = since; /* the time to connect belongs to the first answer's latency */
}

static void complain(const Client *c, const char *what, const char *text) {
    if (bad + broken == 0) fprintf(stderr, "%s, status %d: %.300s\n", what, c->status, text);
}

/* Stamps are counted and aged as they come. The body's last bytes are kept: the next read may complete a stamp. */
static void scan(Client *c, const char *data, size_t size) {
    char seam[STAMP * 2];
    size_t from_data = size < STAMP - 1 ? size : STAMP - 1;
    memcpy(seam, c->kept, c->tail);
    memcpy(seam + c->tail, data, from_data);
    const char *spans[2] = {seam, data};
    size_t sizes[2] = {c->tail ? c->tail + from_data : 0, size};
    int64_t t = now();
    for (int i = 0; i < 2; i++) {
        const char *at = spans[i], *end = spans[i] + sizes[i];
        while ((at = memchr(at, '@', end - at)) && end - at >= STAMP) {
            if (at[STAMP - 1] != '@') {
                at++;
                continue;
            }
            int64_t stamp = strtoll(at + 1, NULL, 10);
            add(&age, t - stamp);
            if (c->chunks++ == 0) add(&first, t - c->asked);
            chunks++;
            at += STAMP;
        }
        c->done_seen = c->done_seen || (sizes[i] && (memmem(spans[i], sizes[i], "[DONE]", 6) ||
                                                     memmem(spans[i], sizes[i], "message_stop", 12)));
    }
    if (size >= STAMP - 1) {
        c->tail = STAMP - 1;
        memcpy(c->kept, data + size - c->tail, c->tail);
    } else {
        size_t held = c->tail + size, drop = held > STAMP - 1 ? held - (STAMP - 1) : 0;
        memmove(c->kept, c->kept + drop, c->tail - drop);
        memcpy(c->kept + c->tail - drop, data, size);
        c->tail = held - drop;
    }
}

static void read_head(Client *c) {
    c->status = strncmp(c->line, "HTTP/1.1 ", 9) ? 0 : atoi(c->line + 9);
    char *length = strcasestr(c->line, "\ncontent-length:");
    c->closes = strcasestr(c->line, "\nconnection: close") != NULL;
    if (strcasestr(c->line, "\ntransfer-encoding: chunked")) c->part = IN_CHUNK_SIZE;
    else if (length) c->part = (c->left = atol(length + 16)) ? IN_LENGTH : ENDED;
    else c->part = UNTIL_CLOSE;
    c->head = 0;
}

/* Takes bytes up to and with `mark` into `line`; how many were taken. `line` is whole when `*whole`. */
static size_t take_until(Client *c, const char *data, size_t size, const char *mark, bool *whole) {
    size_t before = c->head, room = HEAD - before, taken = size < room ? size : room, width = strlen(mark);
    memcpy(c->line + before, data, taken);
    char *found = memmem(c->line, before + taken, mark, width);
    *whole = found != NULL;
    c->head = found ? (size_t)(found - c->line) + width : before + taken;
    c->line[c->head] = 0;
    return c->head - before;
}

/* One step through the answer's bytes; how many were used. */
static size_t parse(Client *c, const char *data, size_t size) {
    bool whole = false;
    size_t used;
    switch (c->part) {
        case IN_HEAD:
            used = take_until(c, data, size, "\r\n\r\n", &whole);
            if (whole) read_head(c);
            return used;
        case IN_CHUNK_SIZE:
            used = take_until(c, data, size, "\r\n", &whole);
            if (whole) {
                c->left = strtol(c->line, NULL, 16);
                c->part = c->left ? IN_CHUNK : IN_TRAILER;
                c->head = 0;
            }
            return used;
        case AFTER_CHUNK:
        case IN_TRAILER:
            used = take_until(c, data, size, "\r\n", &whole);
            if (whole) {
                c->part = c->part == AFTER_CHUNK ? IN_CHUNK_SIZE : ENDED;
                c->head = 0;
            }
            return used;
        case IN_LENGTH:
        case IN_CHUNK:
            used = size < (size_t)c->left ? size : (size_t)c->left;
            if (expected_chunks) scan(c, data, used);
            c->left -= used;
            if (!c->left) c->part = c->part == IN_CHUNK ? AFTER_CHUNK : ENDED;
            return used;
        case UNTIL_CLOSE:
            if (expected_chunks) scan(c, data, size);
            return size;
        default:
            return 0;
    }
}

static void stop_asking(Client *c) {
    close(c->fd);
    c->asking = false;
    asking--;
}

/* The answer is over: count it. */
static void settle(Client *c, const char *text) {
    if (c->status != 200) {
        complain(c, "bad", text);
        bad++;
    } else if (expected_chunks && (!c->done_seen || c->chunks != expected_chunks)) {
        complain(c, "incomplete", text);
        broken++;
    } else {
        answers++;
        add(&latency, now() - c->asked);
    }
    c->answers++;
}

static void on_readable(Client *c, int64_t end, long each) {
    static char data[READ + 1];
    ssize_t size = recv(c->fd, data, READ, 0);
    if (size < 0 && errno == EAGAIN) return;
    bool closed = size <= 0;
    if (closed) size = 0;
    data[size] = 0;
    for (ssize_t used = 0; used < size && c->part != ENDED;) {
        size_t step = parse(c, data + used, size - used);
        if (!step) closed = true; /* a head or a line that does not end */
        if (!step) break;
        used += step;
    }
    if (closed && c->part == UNTIL_CLOSE) c->part = ENDED;
    if (c->part == ENDED) {
        settle(c, data);
    } else if (closed) {
        complain(c, "broken off", data);
        broken++;
        c->answers++;
    } else {
        return;
    }
    if (now() >= end || (each && c->answers >= each) || broken > MAX_BROKEN) {
        stop_asking(c);
    } else if (closed || c->closes) {
        close(c->fd);
        dial(c);
    } else {
        ask(c);
    }
}

int main(int argc, char **argv) {
    if (argc != 8) return fprintf(stderr, "usage: load PORT CONNECTIONS SECONDS EACH GRACE CHUNKS REQUEST\n"), 2;
    port = atoi(argv[1]);
    int count = atoi(argv[2]), opened = 0;
    double seconds = atof(argv[3]), grace = atof(argv[5]);
    long each = atol(argv[4]);
    expected_chunks = atol(argv[6]);
    FILE *file = fopen(argv[7], "rb");
    if (!file || !(request_length = fread(request, 1, sizeof request, file))) return perror(argv[7]), 1;
    fclose(file);
    Client *clients = calloc(count, sizeof *clients);
    struct epoll_event events[EVENTS];
    epoll = epoll_create1(0);

    int64_t start = now(), end = start + seconds * 1e9, last = end + grace * 1e9;
    while (now() < last && (asking || (opened < count && now() < end))) {
        while (opened < count && now() < end && now() >= start + opened * 1000000LL) {
            clients[opened].asking = true;
            asking++;
            dial(&clients[opened++]);
        }
        int ready = epoll_wait(epoll, events, EVENTS, opened < count ? 1 : 50);
        for (int i = 0; i < ready; i++) {
            Client *c = events[i].data.ptr;
            if (!c->asking) continue;
            if (!c->connected && !(events[i].events & (EPOLLERR | EPOLLHUP))) on_connected(c);
            else on_readable(c, end, each);
        }
    }
    printf("{\"seconds\":%.4f,\"opened\":%d,\"connects\":%ld,\"answers\":%ld,\"bad\":%ld,\"broken\":%ld,\"unfinished\":%d,"
           "\"chunks\":%ld",
           (now() - start) / 1e9, opened, connects, answers, bad, broken, asking, chunks);
    print_samples("latency", &latency);
    print_samples("first", &first);
    print_samples("age", &age);
    printf("}\n");
    return 0;
}
