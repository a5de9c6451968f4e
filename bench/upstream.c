/* The provider of the benchmark: speaks just enough of OpenAI's chat API, fast enough never to be what is measured.
 *
 *   upstream PORT
 *
 * A plain request gets about 1.5 KB of JSON at once. A streamed one gets `max_tokens` chunks (200 where none is given),
 * each written by a send() of its own and stamped "@<CLOCK_MONOTONIC, ns>@", so that whoever receives it on this
 * machine can tell its age. `seed` is the pace in microseconds (50,000 where none is given); 0: as fast as the reader
 * takes them. The usage chunk comes where `stream_options.include_usage` asks for it. GET answers the number of requests
 * so far.
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

enum { MAX_CONNECTIONS = 16384, INPUT = 65536, OUTPUT = 4096, EVENTS = 256, DEFAULT_CHUNKS = 200 };
enum { DEFAULT_PACE = 50000 }; /* microseconds */

typedef struct {
    int fd;
    bool streaming, with_usage;
    int pacer;             /* place in `paced`, or -1 */
    long chunks, sent;     /* of the stream: how many there will be, how many there were */
    int64_t pace;          /* ns */
    size_t input, output;  /* bytes held */
    char in[INPUT + 1], out[OUTPUT];
} Connection;

typedef struct {
    int64_t due;
    Connection *connection;
} Pacer;

static Connection *connections[MAX_CONNECTIONS]; /* by file descriptor */
static Pacer paced[MAX_CONNECTIONS];
static int paced_count;
static long requests;
static char plain_answer[OUTPUT];
static size_t plain_length;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void pace_start(Connection *c) {
    c->pacer = paced_count;
    paced[paced_count++] = (Pacer){.due = now(), .connection = c};
}

static void pace_stop(Connection *c) {
    if (c->pacer < 0) return;
    paced[c->pacer] = paced[--paced_count];
    paced[c->pacer].connection->pacer = c->pacer;
    c->pacer = -1;
}

static void hang_up(Connection *c) {
    pace_stop(c);
    connections[c->fd] = NULL;
    close(c->fd);
    free(c);
}

/* Everything held is sent, or the socket is full: true. The reader is gone: false. */
static bool flush(Connection *c) {
    size_t done = 0;
    while (done < c->output) {
        ssize_t n = send(c->fd, c->out + done, c->output - done, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) return false;
        if (n < 0) break;
        done += n;
    }
    memmove(c->out, c->out + done, c->output - done);
    c->output -= done;
    return true;
}

static void put_event(Connection *c, const char *data) {
    size_t size = strlen("data: ") + strlen(data) + strlen("\n\n");
    c->output += snprintf(c->out + c->output, OUTPUT - c->output, "%zx\r\ndata: %s\n\n\r\n", size, data);
}

static void put_next(Connection *c) {
    static const char *frame = "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
                               "\"model\":\"mock-model\",\"choices\":[%s]%s}";
    char choice[128], event[512];
    if (c->sent < c->chunks) {
        snprintf(choice, sizeof choice, "{\"index\":0,\"delta\":{\"content\":\"@%019lld@\"},\"finish_reason\":%s}",
                 (long long)now(), c->sent + 1 == c->chunks ? "\"stop\"" : "null");
        snprintf(event, sizeof event, frame, choice, "");
        put_event(c, event);
        c->sent++;
        return;
    }
    if (c->with_usage) {
        char usage[128];
        snprintf(usage, sizeof usage, ",\"usage\":{\"prompt_tokens\":40,\"completion_tokens\":%ld,\"total_tokens\":%ld}",
                 c->chunks, c->chunks + 40);
        snprintf(event, sizeof event, frame, "", usage);
        put_event(c, event);
    }
    put_event(c, "[DONE]");
    memcpy(c->out + c->output, "0\r\n\r\n", 5);
    c->output += 5;
    c->streaming = false;
    pace_stop(c);
}

/* An unpaced stream goes on for as long as the socket takes it. */
static bool pump(Connection *c) {
    while (c->streaming && c->pacer < 0 && c->output == 0) {
        put_next(c);
        if (!flush(c)) return false;
    }
    return true;
}

/* The text after `"name":` in a JSON body whose strings do not hold that text; NULL where it is not there. */
static const char *field(const char *body, const char *name) {
    const char *found = strstr(body, name);
    return found ? found + strlen(name) + strspn(found + strlen(name), ": ") : NULL;
}

static long number(const char *body, const char *name, long otherwise) {
    const char *value = field(body, name);
    return value ? strtol(value, NULL, 10) : otherwise;
}

static bool is_true(const char *body, const char *name) {
    const char *value = field(body, name);
    return value && strncmp(value, "true", 4) == 0;
}

static bool answer(Connection *c, const char *head, const char *body) {
    if (strncmp(head, "GET ", 4) == 0) {
        char text[32];
        int size = snprintf(text, sizeof text, "%ld", requests);
        c->output += snprintf(c->out, OUTPUT, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, text);
        return flush(c);
    }
    requests++;
    if (!is_true(body, "\"stream\"")) {
        memcpy(c->out, plain_answer, plain_length);
        c->output = plain_length;
        return flush(c);
    }
    c->streaming = true;
    c->with_usage = is_true(body, "\"include_usage\"");
    c->chunks = number(body, "\"max_tokens\"", DEFAULT_CHUNKS);
    c->sent = 0;
    c->pace = number(body, "\"seed\"", DEFAULT_PACE) * 1000;
    c->output = snprintf(c->out, OUTPUT, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                                         "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n");
    if (c->pace) pace_start(c);
    return flush(c) && pump(c);
}

/* Where the first request in the buffer ends; NULL where there is more to come. */
static char *end_of_request(Connection *c, char **body) {
    char *blank = strstr(c->in, "\r\n\r\n"), *end;
    if (!blank) return NULL;
    *body = blank + 4;
    *blank = 0; /* header fields are looked for in the head only */
    char *length = strcasestr(c->in, "\ncontent-length:"), *chunked = strcasestr(c->in, "\ntransfer-encoding: chunked");
    *blank = '\r';
    if (chunked) return (end = strstr(*body, "0\r\n\r\n")) ? end + 5 : NULL;
    end = *body + (length ? atol(length + 16) : 0);
    return end <= c->in + c->input ? end : NULL;
}

static bool take_requests(Connection *c) {
    char *body, *end;
    while (!c->streaming && c->output == 0 && c->input && (end = end_of_request(c, &body))) {
        char kept = *end;
        *end = 0;
        if (!answer(c, c->in, body)) return false;
        *end = kept;
        c->input -= end - c->in;
        memmove(c->in, end, c->input);
        c->in[c->input] = 0;
    }
    return true;
}

static bool read_all(Connection *c) {
    for (;;) {
        if (c->input == INPUT) return false; /* no request of the benchmark is this large */
        ssize_t n = recv(c->fd, c->in + c->input, INPUT - c->input, 0);
        if (n < 0) return errno == EAGAIN;
        if (n == 0) return false;
        c->input += n;
        c->in[c->input] = 0;
    }
}

static void on_event(Connection *c, uint32_t events) {
    bool alive = true;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) alive = read_all(c);
    if (alive && c->output) alive = flush(c) && pump(c);
    if (alive) alive = take_requests(c);
    if (!alive) hang_up(c);
}

static void accept_all(int listener, int epoll) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        Connection *c = fd < MAX_CONNECTIONS ? calloc(1, sizeof *c) : NULL;
        if (!c) {
            close(fd);
            continue;
        }
        c->fd = fd;
        c->pacer = -1;
        connections[fd] = c;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.fd = fd};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

/* One chunk for each stream whose time has come and whose reader has taken the chunk before. */
static void tick(void) {
    int64_t t = now();
    for (int i = paced_count - 1; i >= 0; i--) { /* backwards: a stream that ends takes the last one's place */
        Connection *c = paced[i].connection;
        if (paced[i].due > t || c->output) continue;
        paced[i].due += c->pace;
        put_next(c);
        if (!flush(c)) hang_up(c);
    }
}

static void write_plain_answer(void) {
    char content[1200], body[2048];
    for (size_t i = 0; i < sizeof content - 1; i++) content[i] = i % 7 == 6 ? ' ' : 'x';
    content[sizeof content - 1] = 0;
    int size = snprintf(body, sizeof body,
                        "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1700000000,"
                        "\"model\":\"mock-model\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
                        "\"content\":\"%s\"},\"finish_reason\":\"stop\"}],"
                        "\"usage\":{\"prompt_tokens\":40,\"completion_tokens\":200,\"total_tokens\":240}}",
                        content);
    plain_length = snprintf(plain_answer, sizeof plain_answer,
                            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", size, body);
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: upstream PORT\n"), 2;
    write_plain_answer();
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), epoll = epoll_create1(0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096))
        return perror("upstream"), 1;
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, paced_count ? 1 : -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener) accept_all(listener, epoll);
            else if (connections[events[i].data.fd]) on_event(connections[events[i].data.fd], events[i].events);
        }
        if (paced_count) tick();
    }
}
