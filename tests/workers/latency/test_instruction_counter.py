"""The instruction counter: the class of an instruction word, and how it talks to each plugin interface of QEMU."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from workers.latency.emulated.arm_root import COUNTER_SOURCE

GCC = shutil.which("gcc")
pytestmark = pytest.mark.skipif(GCC is None, reason="needs gcc")

# Words as GNU as (binutils 2.40) encodes the instruction beside each.
ENCODED = {
    "vfma": """
        4e22cc20 fmla v0.4s, v1.4s, v2.4s
        4ea2cc20 fmls v0.4s, v1.4s, v2.4s
        0e22cc20 fmla v0.2s, v1.2s, v2.2s
        4e7dcfdf fmla v31.2d, v30.2d, v29.2d
        4fa21820 fmla v0.4s, v1.4s, v2.s[3]
        4f8750c5 fmls v5.4s, v6.4s, v7.s[0]
        4fc21820 fmla v0.2d, v1.2d, v2.d[1]
        4e420c20 fmla v0.8h, v1.8h, v2.8h
        4f321820 fmla v0.8h, v1.8h, v2.h[7]
        1f020c20 fmadd s0, s1, s2, s3
        1f428c20 fmsub d0, d1, d2, d3
        1f220c20 fnmadd s0, s1, s2, s3
    """,
    "simd_fp": """
        6e22dc20 fmul v0.4s, v1.4s, v2.4s
        4fa29020 fmul v0.4s, v1.4s, v2.s[1]
        4e22dc20 fmulx v0.4s, v1.4s, v2.4s
        4e22d420 fadd v0.4s, v1.4s, v2.4s
        4e22f420 fmax v0.4s, v1.4s, v2.4s
        4e22c420 fmaxnm v0.4s, v1.4s, v2.4s
        4ea29420 mla v0.4s, v1.4s, v2.4s
        6fa20020 mla v0.4s, v1.4s, v2.s[1]
        1e380020 fcvtzs w0, s1
        1e220020 scvtf s0, w1
        4f03f600 fmov v0.4s, #1.0
        4f000400 movi v0.4s, #0x0
        4e040c20 dup v0.4s, w1
        4e040420 dup v0.4s, v1.s[0]
        6e0c0420 mov v0.s[1], v1.s[0]
        4e823820 zip1 v0.4s, v1.4s, v2.4s
        4e020020 tbl v0.16b, {v1.16b}, v2.16b
        6e022020 ext v0.16b, v1.16b, v2.16b, #4
        1e212000 fcmp s0, s1
    """,
    "vload": """
        3dc00000 ldr q0, [x0]
        3ce16800 ldr q0, [x0, x1]
        3cc10c00 ldr q0, [x0, #16]!
        3cc10400 ldr q0, [x0], #16
        3cdf0000 ldur q0, [x0, #-16]
        fd400000 ldr d0, [x0]
        bd400000 ldr s0, [x0]
        3d400000 ldr b0, [x0]
        9c000640 ldr q0, 164
        ad400400 ldp q0, q1, [x0]
        acc10400 ldp q0, q1, [x0], #32
        6d4127e8 ldp d8, d9, [sp, #16]
        ac400400 ldnp q0, q1, [x0]
        4c407800 ld1 {v0.4s}, [x0]
        4cdf2800 ld1 {v0.4s-v3.4s}, [x0], #64
        4d40c800 ld1r {v0.4s}, [x0]
        0d409000 ld1 {v0.s}[1], [x0]
        4c408800 ld2 {v0.4s, v1.4s}, [x0]
        4d40e800 ld3r {v0.4s-v2.4s}, [x0]
    """,
    "vstore": """
        3d800000 str q0, [x0]
        3ca16800 str q0, [x0, x1]
        3c9f0000 stur q0, [x0, #-16]
        bc004400 str s0, [x0], #4
        fd000000 str d0, [x0]
        ad000400 stp q0, q1, [x0]
        6dbf27e8 stp d8, d9, [sp, #-16]!
        ac000400 stnp q0, q1, [x0]
        4c007800 st1 {v0.4s}, [x0]
        4c9fa800 st1 {v0.4s, v1.4s}, [x0], #32
        4d008000 st1 {v0.s}[2], [x0]
        4c000800 st4 {v0.4s-v3.4s}, [x0]
    """,
    "load": """
        f9400020 ldr x0, [x1]
        b9400420 ldr w0, [x1, #4]
        b8625820 ldr w0, [x1, w2, uxtw #2]
        39400020 ldrb w0, [x1]
        b9800020 ldrsw x0, [x1]
        79c00020 ldrsh w0, [x1]
        f85f8020 ldur x0, [x1, #-8]
        58000280 ldr x0, 164
        98000260 ldrsw x0, 164
        f9800000 prfm pldl1keep, [x0]
        a8c107e0 ldp x0, x1, [sp], #16
        69400440 ldpsw x0, x1, [x2]
        885f7c20 ldxr w0, [x1]
        88dffc20 ldar w0, [x1]
        c85ffc20 ldaxr x0, [x1]
        b8200041 ldadd w0, w1, [x2]
        f8208041 swp x0, x1, [x2]
        f8bfc020 ldapr x0, [x1]
    """,
    "store": """
        f9000020 str x0, [x1]
        b9000420 str w0, [x1, #4]
        39000020 strb w0, [x1]
        78226820 strh w0, [x1, x2]
        f81f8020 stur x0, [x1, #-8]
        a9bf7bfd stp x29, x30, [sp, #-16]!
        29000440 stp w0, w1, [x2]
        88027c20 stxr w2, w0, [x1]
        889ffc20 stlr w0, [x1]
    """,
    "branch": """
        14000000 b 164
        54ffffe0 b.eq 164
        54ffffc1 b.ne 164
        97fffffd bl 164
        d63f0000 blr x0
        d61f0000 br x0
        d65f03c0 ret
        b4ffff20 cbz x0, 164
        35ffff00 cbnz w0, 164
        361ffee0 tbz w0, #3, 164
        b70ffec0 tbnz x0, #33, 164
        d4000001 svc #0x0
        d503201f nop
        d5033bbf dmb ish
        d53bd040 mrs x0, tpidr_el0
    """,
    "int": """
        8b020020 add x0, x1, x2
        91000420 add x0, x1, #0x1
        4b020020 sub w0, w1, w2
        eb020020 subs x0, x1, x2
        eb01001f cmp x0, x1
        9b020c20 madd x0, x1, x2, x3
        9b027c20 mul x0, x1, x2
        9ac20820 udiv x0, x1, x2
        92401c20 and x0, x1, #0xff
        aa020020 orr x0, x1, x2
        d37df020 lsl x0, x1, #3
        d2800020 mov x0, #0x1
        f2a00020 movk x0, #0x1, lsl #16
        90000000 adrp x0, 0
        10fffc60 adr x0, 164
        9a820020 csel x0, x1, x2, eq
        d3431820 ubfx x0, x1, #3, #4
        dac00c20 rev x0, x1
        dac01020 clz x0, x1
        fa410000 ccmp x0, x1, #0x0, eq
    """,
}


def run_gcc(*arguments: str | Path) -> None:
    subprocess.run([GCC, "-Wall", "-Wextra", "-Werror", *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    program = tmp_path_factory.mktemp("classifier") / "classifier"
    run_gcc("-DCLASSIFIER_TEST", "-o", program, COUNTER_SOURCE)
    return program


def words(listing: str) -> list[str]:
    return [line.split()[0] for line in listing.strip().splitlines()]


@pytest.mark.parametrize("name", ENCODED)
def test_every_instruction_is_in_the_class_its_assembler_text_says(classifier, name):
    lines = ENCODED[name].strip().splitlines()
    done = subprocess.run([classifier, *words(ENCODED[name])], capture_output=True, text=True, check=True)
    assert dict(zip(lines, done.stdout.split(), strict=True)) == dict.fromkeys(lines, name)


# A stand-in for QEMU with the functions of one plugin interface: it shows the plugin a block of the words given, runs
# it a number of times between the markers, and has two processors. HAS_SCOREBOARD is interface 2, COPIES_DATA 3.
STAND_IN = r"""
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef void (*block_cb)(uint64_t, void *);
typedef void (*syscall_cb)(uint64_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                           uint64_t, uint64_t);
static block_cb on_block;
static syscall_cb on_syscall;
static uint32_t words[64];
static size_t word_count;
static struct { uint64_t *at; uint64_t amount; } adds[64];
static size_t add_count;
void qemu_plugin_outs(const char *text) { fputs(text, stderr); }
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, block_cb cb) { (void)id; on_block = cb; }
void qemu_plugin_register_vcpu_syscall_cb(uint64_t id, syscall_cb cb) { (void)id; on_syscall = cb; }
size_t qemu_plugin_tb_n_insns(const void *block) { (void)block; return word_count; }
const void *qemu_plugin_tb_get_insn(const void *block, size_t at) { (void)block; return &words[at]; }
#ifdef COPIES_DATA
size_t qemu_plugin_insn_data(const void *instruction, void *to, size_t size)
{
    memcpy(to, instruction, size);
    return size;
}
#else
const void *qemu_plugin_insn_data(const void *instruction) { return instruction; }
#endif
static void add_per_run(uint64_t *at, uint64_t amount) { adds[add_count].at = at; adds[add_count++].amount = amount; }
#ifdef HAS_SCOREBOARD
typedef struct { char *score; size_t offset; } u64;
static size_t element;
void *qemu_plugin_scoreboard_new(size_t size) { element = size; return calloc(2, size); }
uint64_t qemu_plugin_u64_sum(u64 e)
{
    return *(uint64_t *)(e.score + e.offset) + *(uint64_t *)(e.score + element + e.offset);
}
void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(void *block, int op, u64 e, uint64_t amount)
{
    (void)block, (void)op;
    add_per_run((uint64_t *)(e.score + element + e.offset), amount);
}
enum { LEAST = 2, CURRENT = 2 };
#else
void qemu_plugin_register_vcpu_tb_exec_inline(void *block, int op, void *at, uint64_t amount)
{
    (void)block, (void)op;
    add_per_run(at, amount);
}
enum { LEAST = 0, CURRENT = 1 };
#endif
static void run(int times)
{
    while (times--)
        for (size_t i = 0; i < add_count; i++)
            *adds[i].at += adds[i].amount;
}
int main(int count, char **argv)
{
    struct { const char *target; int least, current; char rest[64]; } info = {argv[2], LEAST, CURRENT, ""};
#ifdef COPIES_DATA
    info.current = 4;
#endif
    void *plugin = dlopen(argv[1], RTLD_NOW);
    if (!plugin)
        return fprintf(stderr, "%s\n", dlerror()), 2;
    int version = *(int *)dlsym(plugin, "qemu_plugin_version");
    if (version < LEAST || version > info.current)
        return fprintf(stderr, "version %d\n", version), 3;
    int (*install)(uint64_t, void *, int, char **) = (int (*)(uint64_t, void *, int, char **))dlsym(
        plugin, "qemu_plugin_install");
    int refused = install(1, &info, 1, &argv[3]);
    if (refused)
        return 4;
    for (int i = 4; i < count; i++)
        words[word_count++] = (uint32_t)strtoul(argv[i], NULL, 16);
    on_block(1, words);
    run(5);
    for (int repeat = 1; repeat <= 2; repeat++) {
        on_syscall(1, 0, 172, 0x5eed01, 0, 0, 0, 0, 0, 0, 0); /* another call with the marker's number */
        on_syscall(1, 0, 156, 0x5eed01, 0, 0, 0, 0, 0, 0, 0);
        run(10 * repeat);
        on_syscall(1, 0, 156, 1, 0, 0, 0, 0, 0, 0, 0);
        on_syscall(1, 0, 156, 0x5eed02, 0, 0, 0, 0, 0, 0, 0);
        run(3);
    }
    return 0;
}
"""
INTERFACES = {"1": [], "2": ["-DHAS_SCOREBOARD"], "3": ["-DHAS_SCOREBOARD", "-DCOPIES_DATA"]}


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    library = tmp_path_factory.mktemp("plugin") / "instruction_counter.so"
    run_gcc("-shared", "-fPIC", "-fvisibility=hidden", "-o", library, COUNTER_SOURCE)
    return library


@pytest.fixture(scope="module", params=INTERFACES)
def stand_in(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stand-in")
    (folder / "qemu.c").write_text(STAND_IN)
    run_gcc("-Wno-pedantic", "-rdynamic", "-o", folder / "qemu", folder / "qemu.c", *INTERFACES[request.param], "-ldl")
    return folder / "qemu"


def test_each_marked_run_is_one_line_of_counts_under_every_plugin_interface(stand_in, plugin, tmp_path):
    block = ["4e22cc20", "4e22cc20", "3dc00000", "8b020020", "54ffffe0"]  # 2 fmla, ldr q, add, b.eq
    out = tmp_path / "counts"
    subprocess.run([stand_in, plugin, "aarch64", f"out={out}", *block], check=True)
    once = {"all": 5, "branch": 1, "load": 0, "store": 0, "vload": 1, "vstore": 0, "vfma": 2, "simd_fp": 0, "int": 1}
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert lines == [{name: times * count for name, count in once.items()} for times in (10, 20)]


@pytest.mark.parametrize(
    ("target", "option"), [("x86_64", "out={folder}/c"), ("aarch64", "out={folder}/no/c"), ("aarch64", "in=c")]
)
def test_a_wrong_program_or_no_file_to_write_is_refused_in_one_line(stand_in, plugin, tmp_path, target, option):
    command = [stand_in, plugin, target, option.format(folder=tmp_path), "8b020020"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert "out=FILE" in done.stderr
