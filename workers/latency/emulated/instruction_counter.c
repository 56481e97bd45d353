/* A QEMU plugin that counts the aarch64 instructions a program executes, by class, between two marker calls.
 *
 * - getsid(START) begins a count, getsid(STOP) appends it as one line of JSON to the file of the argument `out`. No
 *   session has such a number, so outside the emulator the calls only fail.
 * - Counts are those of all threads together.
 * - One build serves every QEMU since 4.2: up to 8.2 (plugin interface 1) counters are plain memory, from 9.0
 *   (interface 2) they are per virtual processor, and from 9.1 (interface 3) an instruction is copied out. Which one
 *   is there is seen when the plugin is loaded. It was run under 7.2; the newer interfaces only under a test's stand-in.
 * - No header is included from QEMU: Debian 12 ships none, and the dozen names used are declared below.
 * - With -DCLASSIFIER_TEST it is a program instead: it prints the class of each instruction word given in hexadecimal.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALL, BRANCH, LOAD, STORE, VLOAD, VSTORE, VFMA, SIMD_FP, INT, CLASSES };

static const char *const NAMES[CLASSES] = {
    "all", "branch", "load", "store", "vload", "vstore", "vfma", "simd_fp", "int",
};

/* ---- what an instruction word is; the fields are those of the Arm Architecture Reference Manual, C4.1 ---------- */

static unsigned field(uint32_t word, int high, int low)
{
    return (word >> low) & ((1u << (high - low + 1)) - 1);
}

static bool is_vector_multiply_add(uint32_t word)
{
    return (word & 0xBF20FC00) == 0x0E20CC00     /* FMLA, FMLS (vector), single and double */
           || (word & 0xBF60FC00) == 0x0E400C00  /* FMLA, FMLS (vector), half */
           || (word & 0xBF00B400) == 0x0F001000; /* FMLA, FMLS (by element) */
}

static bool is_scalar_multiply_add(uint32_t word)
{
    return (word & 0xFF000000) == 0x1F000000; /* FMADD, FMSUB, FNMADD, FNMSUB */
}

/* Loads and stores; a prefetch counts as a load, an atomic that returns what it found too. */
static bool is_load(uint32_t word, bool vector)
{
    unsigned opc = field(word, 23, 22);
    switch (field(word, 29, 28)) {
    case 0: /* vector structures; exclusive and ordered */
    case 2: /* pairs */
        return opc & 1;
    case 1: /* literal; load-acquire RCpc with an offset */
        return field(word, 24, 24) == 0 || opc != 0;
    default: /* one register */
        if (vector)
            return opc & 1;
        bool atomic = field(word, 24, 24) == 0 && field(word, 21, 21) == 1 && field(word, 11, 10) == 0;
        return opc != 0 || atomic;
    }
}

static int classify(uint32_t word)
{
    unsigned group = field(word, 28, 25);
    if ((group & 0xE) == 0xA)
        return BRANCH; /* with the system instructions, which share the encoding group: barriers, hints, calls */
    if ((group & 0x5) == 0x4) {
        bool vector = field(word, 26, 26);
        if (is_load(word, vector))
            return vector ? VLOAD : LOAD;
        return vector ? VSTORE : STORE;
    }
    if ((group & 0x7) == 0x7)
        return is_vector_multiply_add(word) || is_scalar_multiply_add(word) ? VFMA : SIMD_FP;
    return INT;
}

#ifdef CLASSIFIER_TEST

int main(int count, char **words)
{
    for (int i = 1; i < count; i++)
        puts(NAMES[classify((uint32_t)strtoul(words[i], NULL, 16))]);
    return 0;
}

#else

/* ---- QEMU's side ----------------------------------------------------------------------------------------------- */

#define EXPORT __attribute__((visibility("default")))
#define WEAK __attribute__((weak)) /* null where this QEMU has no such function */

typedef uint64_t qemu_plugin_id_t;
typedef struct {
    const char *target_name;
    struct {
        int min;
        int cur;
    } version;
} qemu_info_t; /* its beginning: the rest isn't read */
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_scoreboard;
typedef struct {
    struct qemu_plugin_scoreboard *score;
    size_t offset;
} qemu_plugin_u64;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
typedef void (*block_callback)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*syscall_callback)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                                 uint64_t, uint64_t, uint64_t);

void qemu_plugin_outs(const char *);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, block_callback);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, syscall_callback);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *, size_t);
/* interface 1 */
WEAK void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum qemu_plugin_op, void *, uint64_t);
/* interface 2 and later */
WEAK void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(struct qemu_plugin_tb *, enum qemu_plugin_op,
                                                            qemu_plugin_u64, uint64_t);
WEAK struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t);
WEAK uint64_t qemu_plugin_u64_sum(qemu_plugin_u64);

/* ---- counting -------------------------------------------------------------------------------------------------- */

enum { GETSID = 156, START = 0x5EED01, STOP = 0x5EED02 }; /* the system call's number on aarch64 */

EXPORT int qemu_plugin_version = 1;

static uint64_t plain[CLASSES];                 /* the counters under interface 1 */
static struct qemu_plugin_scoreboard *per_vcpu; /* and under later ones */
static bool data_is_copied;                     /* interface 3 */
static uint64_t started[CLASSES];
static FILE *out;

/* QEMU reads the version once this library is loaded, so it can still be told what it wants to hear. */
__attribute__((constructor)) static void choose_interface(void)
{
    if (qemu_plugin_scoreboard_new)
        qemu_plugin_version = 2;
}

static uint32_t word_of(const struct qemu_plugin_insn *instruction)
{
    uint32_t word = 0;
    if (data_is_copied) {
        qemu_plugin_insn_data(instruction, &word, sizeof word);
    } else {
        const void *(*data)(const struct qemu_plugin_insn *) = (const void *(*)(const struct qemu_plugin_insn *))(
            void (*)(void))qemu_plugin_insn_data;
        memcpy(&word, data(instruction), sizeof word);
    }
    return word;
}

static qemu_plugin_u64 entry(int class)
{
    return (qemu_plugin_u64){per_vcpu, (size_t)class * sizeof(uint64_t)};
}

static uint64_t counted(int class)
{
    return per_vcpu ? qemu_plugin_u64_sum(entry(class)) : plain[class];
}

static void on_block(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    uint64_t counts[CLASSES] = {0};
    counts[ALL] = qemu_plugin_tb_n_insns(block);
    for (size_t i = 0; i < counts[ALL]; i++)
        counts[classify(word_of(qemu_plugin_tb_get_insn(block, i)))]++;
    for (int class = 0; class < CLASSES; class++) {
        if (!counts[class])
            continue;
        if (per_vcpu)
            qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(block, QEMU_PLUGIN_INLINE_ADD_U64, entry(class),
                                                              counts[class]);
        else
            qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &plain[class], counts[class]);
    }
}

static void on_syscall(qemu_plugin_id_t id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                       uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)vcpu, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number != GETSID)
        return;
    if (a1 == START) {
        for (int class = 0; class < CLASSES; class++)
            started[class] = counted(class);
    } else if (a1 == STOP) {
        for (int class = 0; class < CLASSES; class++)
            fprintf(out, "%s\"%s\": %llu", class ? ", " : "{", NAMES[class],
                    (unsigned long long)(counted(class) - started[class]));
        fputs("}\n", out);
        fflush(out);
    }
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int count, char **options)
{
    for (int i = 0; i < count; i++)
        if (strncmp(options[i], "out=", 4) == 0)
            out = fopen(options[i] + 4, "a");
    if (!out || strcmp(info->target_name, "aarch64") != 0) {
        qemu_plugin_outs("instruction_counter: needs out=FILE, a file it may write, and an aarch64 program\n");
        return 1;
    }
    data_is_copied = info->version.cur >= 3;
    if (qemu_plugin_scoreboard_new)
        per_vcpu = qemu_plugin_scoreboard_new(CLASSES * sizeof(uint64_t));
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    return 0;
}

#endif
