/* A libnvidia-ml.so.1 that answers from recorded rows; their format is described in nvml_callbacks.py.
 *
 * Environment: FAKE_NVML_ROWS names the file. Extra symbols: fakeNvmlSetTick, fakeNvmlCalls. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, MOST_ROWS = 65536, MOST_VALUES = 64 };
typedef struct { int tick, device, argument, code, count; char function[64], text[96]; double values[MOST_VALUES]; } Row;
typedef unsigned long long u64;

static Row *rows, nothing = {.code = NOT_SUPPORTED};
static int row_count;
static atomic_int tick;
static atomic_llong calls;

void fakeNvmlSetTick(int now) { tick = now; }
long long fakeNvmlCalls(void) { return calls; }

static int device_of(void *handle) { return (int)(size_t)handle - 1; }

static Row *answer(int device, const char *function, int argument) {
  Row *found = NULL;
  calls++;
  for (int i = 0; i < row_count; i++)
    if (rows[i].device == device && rows[i].argument == argument && rows[i].tick <= tick && !strcmp(rows[i].function, function)
        && (!found || rows[i].tick >= found->tick)) found = &rows[i];
  return found ? found : &nothing;
}

static void read_rows(void) {
  char line[4096], *at, *end;
  FILE *file = fopen(getenv("FAKE_NVML_ROWS"), "r");
  rows = calloc(MOST_ROWS, sizeof *rows);
  while (file && row_count < MOST_ROWS && fgets(line, sizeof line, file)) {
    Row *row = &rows[row_count];
    int start = 0;
    if (sscanf(line, "[%d ,%d ,\"%63[^\"]\" ,%d ,%d ,[%n", &row->tick, &row->device, row->function, &row->argument, &row->code, &start) < 5 || !start)
      continue;
    for (at = line + start; row->count < MOST_VALUES; at = end + strspn(end, ", ")) {
      row->values[row->count] = strtod(at, &end);
      if (end == at) break;
      row->count++;
    }
    sscanf(at, "] ,\"%95[^\"]\"", row->text);
    row_count++;
  }
  if (file) fclose(file);
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; calls++; if (!rows) read_rows(); return SUCCESS; }
int nvmlShutdown(void) { calls++; return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *out) { Row *row = answer(-1, "nvmlDeviceGetCount_v2", 0); *out = (unsigned)row->values[0]; return row->code; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out) { *out = (void *)(size_t)(index + 1); return answer((int)index, "nvmlDeviceGetHandleByIndex_v2", 0)->code; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **out) {
  for (int i = 0; i < row_count; i++)
    if (!strcmp(rows[i].function, "nvmlDeviceGetUUID") && !strcmp(rows[i].text, uuid)) return nvmlDeviceGetHandleByIndex_v2((unsigned)rows[i].device, out);
  return NOT_FOUND;
}

#define TEXT(name) int name(void *handle, char *out, unsigned size) { Row *row = answer(device_of(handle), #name, 0); snprintf(out, size, "%s", row->text); return row->code; }
#define VALUE(name, type) int name(void *handle, type *out) { Row *row = answer(device_of(handle), #name, 0); *out = (type)row->values[0]; return row->code; }
#define VALUE_OF(name) int name(void *handle, int argument, unsigned *out) { Row *row = answer(device_of(handle), #name, argument); *out = (unsigned)row->values[0]; return row->code; }
#define PROCESSES(name) int name(void *handle, unsigned *count, Process *out) { return processes(answer(device_of(handle), #name, 0), count, out); }

TEXT(nvmlDeviceGetUUID)
TEXT(nvmlDeviceGetName)
VALUE(nvmlDeviceGetPowerUsage, unsigned)
VALUE(nvmlDeviceGetEnforcedPowerLimit, unsigned)
VALUE(nvmlDeviceGetPowerManagementLimit, unsigned)
VALUE(nvmlDeviceGetTotalEnergyConsumption, u64)
VALUE(nvmlDeviceGetCurrentClocksEventReasons, u64)
VALUE(nvmlDeviceGetCurrentClocksThrottleReasons, u64)
VALUE_OF(nvmlDeviceGetClockInfo)
VALUE_OF(nvmlDeviceGetTemperature)
VALUE_OF(nvmlDeviceGetPcieThroughput)

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) { Row *row = answer(device_of(handle), "nvmlDeviceGetMigMode", 0); *current = (unsigned)row->values[0]; *pending = (unsigned)row->values[1]; return row->code; }
int nvmlDeviceGetUtilizationRates(void *handle, unsigned *out) { Row *row = answer(device_of(handle), "nvmlDeviceGetUtilizationRates", 0); out[0] = (unsigned)row->values[0]; out[1] = (unsigned)row->values[1]; return row->code; }
int nvmlDeviceGetMemoryInfo(void *handle, u64 *out) { Row *row = answer(device_of(handle), "nvmlDeviceGetMemoryInfo", 0); for (int i = 0; i < 3; i++) out[i] = (u64)row->values[i]; return row->code; }
int nvmlDeviceGetMemoryInfo_v2(void *handle, u64 *out) { /* out[0]: the version, and padding */ Row *row = answer(device_of(handle), "nvmlDeviceGetMemoryInfo_v2", 0); for (int i = 0; i < 4; i++) out[i + 1] = (u64)row->values[i]; return row->code; }
int nvmlDeviceGetTemperatureV(void *handle, int *out) { /* version, sensor, temperature */ Row *row = answer(device_of(handle), "nvmlDeviceGetTemperatureV", out[1]); out[2] = (int)row->values[0]; return row->code; }

typedef struct { unsigned field, scope; long long timestamp, latency; int type, code; union { double d; unsigned u; u64 ull; } value; } Field;
int nvmlDeviceGetFieldValues(void *handle, int count, Field *out) {
  for (int i = 0; i < count; i++) { Row *row = answer(device_of(handle), "nvmlDeviceGetFieldValues", (int)out[i].field); out[i].code = row->code; out[i].value.u = (unsigned)row->values[0]; }
  return SUCCESS;
}

typedef struct { unsigned pid; u64 bytes; unsigned gpu_instance, compute_instance; } Process;
static int processes(Row *row, unsigned *count, Process *out) {
  unsigned offered = *count;
  *count = (unsigned)row->count / 2;
  if (row->code || !*count) return row->code;
  if (!out || offered < *count) return INSUFFICIENT_SIZE;
  for (unsigned i = 0; i < *count; i++) {
    out[i] = (Process){.pid = row->values[2 * i] > 0 ? (unsigned)row->values[2 * i] : (unsigned)getpid()};
    out[i].bytes = row->values[2 * i + 1] < 0 ? ~0ULL : (u64)row->values[2 * i + 1];
  }
  return SUCCESS;
}
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3)
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2)

typedef struct { unsigned id; int code; double value; const char *names[3]; } Monitored;
typedef struct { unsigned version, count; int *before, *after; Monitored metrics[]; } MetricsGet;
int nvmlGpmQueryDeviceSupport(void *handle, unsigned *out) { Row *row = answer(device_of(handle), "nvmlGpmQueryDeviceSupport", 0); out[1] = (unsigned)row->values[0]; return row->code; }
int nvmlGpmSampleAlloc(int **out) { *out = calloc(1, sizeof **out); return SUCCESS; }
int nvmlGpmSampleFree(int *sample) { free(sample); return SUCCESS; }
int nvmlGpmSampleGet(void *handle, int *sample) { *sample = device_of(handle); return answer(*sample, "nvmlGpmSampleGet", 0)->code; }
int nvmlGpmMetricsGet(MetricsGet *asked) {
  if (*asked->before != *asked->after) return NOT_FOUND;
  for (unsigned i = 0; i < asked->count; i++) { Row *row = answer(*asked->after, "nvmlGpmMetricsGet", (int)asked->metrics[i].id); asked->metrics[i].code = row->code; asked->metrics[i].value = row->values[0]; }
  return SUCCESS;
}
