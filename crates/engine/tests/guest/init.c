/* The guest of the engine's tests: loads the modules, then answers lines on the channel.
 * "fill N S": writes N MiB of memory with a pattern from seed S; "sum": a checksum of it; "count": counts its calls. */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *modules[] = {"/virtio.ko", "/virtio_ring.ko", "/virtio_mmio.ko", "/virtio_console.ko"};
static unsigned char *memory;
static size_t length;

static void load(const char *path) {
	int fd = open(path, O_RDONLY);
	if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) != 0)
		perror(path);
	close(fd);
}

static int open_channel(void) {
	for (;;) {
		int fd = open("/dev/vport0p1", O_RDWR);
		if (fd >= 0)
			return fd;
		usleep(5000);
	}
}

static void fill(size_t mib, uint32_t seed) {
	free(memory);
	length = mib << 20;
	memory = malloc(length);
	for (size_t i = 0; i < length; i++) {
		seed = seed * 1664525 + 1013904223;
		memory[i] = seed >> 24;
	}
}

static uint32_t sum(void) {
	uint32_t total = 0;
	for (size_t i = 0; i < length; i++)
		total = total * 31 + memory[i];
	return total;
}

static void answer(int fd, const char *line) {
	static int count;
	size_t mib;
	unsigned seed;
	if (sscanf(line, "fill %zu %u", &mib, &seed) == 2) {
		fill(mib, seed);
		dprintf(fd, "filled\n");
	} else if (strncmp(line, "sum", 3) == 0) {
		dprintf(fd, "%u\n", sum());
	} else {
		dprintf(fd, "%d\n", ++count);
	}
}

int main(void) {
	mkdir("/dev", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, "");
	for (size_t i = 0; i < sizeof modules / sizeof *modules; i++)
		load(modules[i]);
	int fd = open_channel();
	char line[128];
	size_t used = 0;
	for (;;) {
		if (used == sizeof line - 1)
			used = 0;
		ssize_t got = read(fd, line + used, 1);
		if (got <= 0) {
			/* Nobody is connected. */
			usleep(1000);
			continue;
		}
		if (line[used++] == '\n') {
			line[used] = 0;
			answer(fd, line);
			used = 0;
		}
	}
}
