//! The processor that every guest sees: x86-64-v3, as QEMU's guests do, in Firecracker's terms. A template says which bits of
//! what KVM offers guests are let through; what is not named here is not there.
//!
//! Which flaws the processor has is let through as the host has it, so that guests need not protect themselves from what does
//! not concern them. A snapshot notes what is let through, and does not move to a host that differs in it.

use std::io;

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, Msrs, kvm_cpuid_entry2, kvm_msr_entry};
use kvm_ioctls::Kvm;
use serde_json::{Value, json};

use crate::Cpu;
use crate::arch::vendor;

const BASELINE: &str = "x86-64-v3";
/// Family 6, model 63: Haswell, the first that had all of the baseline. It is what guests go by where features do not tell;
/// AWS's templates have it for either maker.
const SIGNATURE: u32 = 0x0003_06f2;
/// The register that tells of an Intel processor's flaws (`IA32_ARCH_CAPABILITIES`).
const FLAWS: u32 = 0x10a;
/// That it is there, in leaf 7's EDX.
const TELLS_FLAWS: u32 = bits(&[29]);

/// The registers of one leaf, in their order.
const REGISTERS: [&str; 4] = ["eax", "ebx", "ecx", "edx"];
const EAX: usize = 0;
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;

/// One register of the processor's description of itself.
struct Register {
    leaf: u32,
    subleaf: u32,
    register: usize,
    /// Bits that are the baseline's.
    needed: u32,
    /// Bits that are let through as the host has them.
    let_through: u32,
    /// Bits that are set whatever the host has.
    set: u32,
}

const fn bits(numbers: &[u32]) -> u32 {
    let (mut word, mut at) = (0, 0);
    while at < numbers.len() {
        word |= 1 << numbers[at];
        at += 1;
    }
    word
}

const fn register(leaf: u32, subleaf: u32, register: usize, needed: &[u32], let_through: &[u32]) -> Register {
    Register { leaf, subleaf, register, needed: bits(needed), let_through: bits(let_through), set: 0 }
}

/// Of features, those that are new with every generation of processors. Numbers are of Intel's and AMD's manuals.
const PROCESSOR: [Register; 22] = [
    Register { leaf: 1, subleaf: 0, register: EAX, needed: 0, let_through: 0, set: SIGNATURE },
    // SSE3, PCLMULQDQ, SSSE3, FMA, CX16, SSE4.1, SSE4.2, x2APIC, MOVBE, POPCNT, AES, XSAVE, AVX, F16C, RDRAND; and
    // TSC-Deadline, OSXSAVE, that there is a hypervisor.
    register(1, 0, ECX, &[0, 1, 9, 12, 13, 19, 20, 21, 22, 23, 25, 26, 28, 29, 30], &[24, 27, 31]),
    // What every 64-bit processor has, but what is for 16-bit programs alone; and hyper-threading.
    register(1, 0, EDX, &[0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26], &[28]),
    // FSGSBASE, BMI1, AVX2, SMEP, BMI2, RDSEED, SMAP; and ERMS.
    register(7, 0, EBX, &[0, 3, 5, 7, 8, 18, 20], &[9]),
    register(7, 0, ECX, &[], &[]),
    // Against flaws: MD_CLEAR, IBRS, STIBP, L1D_FLUSH, that the flaws are told, SSBD.
    register(7, 0, EDX, &[], &[10, 26, 27, 28, 29, 31]),
    register(7, 1, EAX, &[], &[]),
    register(7, 1, EBX, &[], &[]),
    register(7, 1, ECX, &[], &[]),
    register(7, 1, EDX, &[], &[]),
    // Against flaws: PSFD, IPRED_CTRL, RRSBA_CTRL, DDPD_U, BHI_CTRL, MCDT_NO.
    register(7, 2, EDX, &[], &[0, 1, 2, 3, 4, 5]),
    // State that is saved: x87, SSE, AVX.
    register(0xd, 0, EAX, &[0, 1, 2], &[]),
    register(0xd, 0, EDX, &[], &[]),
    // XSAVEOPT.
    register(0xd, 1, EAX, &[0], &[]),
    register(0xd, 1, ECX, &[], &[]),
    register(0xd, 1, EDX, &[], &[]),
    // LAHF, ABM; and the topology of AMD's.
    register(0x8000_0001, 0, ECX, &[0, 5], &[22]),
    // SYSCALL, NX, RDTSCP, long mode; and what AMD says here once more of leaf 1's.
    register(
        0x8000_0001,
        0,
        EDX,
        &[11, 20, 27, 29],
        &[0, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 23, 24],
    ),
    // The time stamp counter goes on at one speed.
    register(0x8000_0007, 0, EDX, &[], &[8]),
    // Against flaws: IBPB, IBRS, STIBP and how they are best used, SSBD, PSFD, what is not concerned.
    register(0x8000_0008, 0, EBX, &[], &[12, 14, 15, 16, 17, 18, 19, 24, 25, 26, 28, 29, 30]),
    register(0x8000_001f, 0, EAX, &[], &[]),
    // LFENCE orders, a null selector clears its base; against flaws: automatic IBRS, SBPB, IBPB_BRTYPE, SRSO_NO.
    register(0x8000_0021, 0, EAX, &[], &[2, 6, 8, 27, 28, 29, 30]),
];

/// A host's processor lacks something of the baseline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bits {bits:#x} of {register} in leaf {leaf:#x} of CPUID, which {BASELINE} has")]
pub struct Lacking {
    leaf: u32,
    register: &'static str,
    bits: u32,
}

/// What KVM offers guests of the host's processor.
#[derive(Debug, Clone, Default)]
pub(crate) struct Supported {
    leaves: Vec<kvm_cpuid_entry2>,
    flaws: Option<u64>,
}

/// Asks KVM.
///
/// # Errors
/// Those of opening it.
pub(crate) fn supported() -> io::Result<Supported> {
    let kvm = Kvm::new()?;
    let leaves = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?.as_slice().to_vec();
    Ok(Supported { leaves, flaws: flaws(&kvm) })
}

fn flaws(kvm: &Kvm) -> Option<u64> {
    let wanted = kvm_msr_entry { index: FLAWS, ..Default::default() };
    let mut msrs = Msrs::from_entries(&[wanted]).ok()?;
    let read = kvm.get_msrs(&mut msrs).ok()?;
    (read == 1).then(|| msrs.as_slice()[0].data)
}

impl Supported {
    fn leaf(&self, leaf: u32, subleaf: u32) -> Option<&kvm_cpuid_entry2> {
        self.leaves.iter().find(|entry| (entry.function, entry.index) == (leaf, subleaf))
    }

    fn value(&self, of: &Register) -> u32 {
        self.leaf(of.leaf, of.subleaf).map_or(0, |entry| of.value(entry))
    }
}

impl Register {
    fn value(&self, entry: &kvm_cpuid_entry2) -> u32 {
        [entry.eax, entry.ebx, entry.ecx, entry.edx][self.register]
    }

    fn name(&self) -> &'static str {
        REGISTERS[self.register]
    }

    /// The same as Firecracker is told it: a bit is set, cleared, or left.
    fn bitmap(&self) -> String {
        let of_bit = |bit: u32| match 1 << bit {
            bit if self.set & bit != 0 => '1',
            bit if (self.needed | self.let_through) & bit != 0 => 'x',
            _ => '0',
        };
        "0b".chars().chain((0..u32::BITS).rev().map(of_bit)).collect()
    }
}

/// The guests' processor on this host.
///
/// # Errors
/// [`Lacking`] where it is none of the baseline.
pub(crate) fn cpu(cpuinfo: &str, host: &Supported) -> Result<Cpu, Lacking> {
    let mut features = Vec::new();
    for register in &PROCESSOR {
        let value = host.value(register);
        let bits = register.needed & !value;
        if bits != 0 {
            return Err(Lacking { leaf: register.leaf, register: register.name(), bits });
        }
        // What all hosts have alike need not be compared.
        let own = value & register.let_through;
        if own != 0 {
            features.push(format!("{:#x}.{}.{}={own:#x}", register.leaf, register.subleaf, register.name()));
        }
        if own & TELLS_FLAWS != 0 && (register.leaf, register.register) == (7, EDX) {
            features.extend(host.flaws.map(|flaws| format!("msr.{FLAWS:#x}={flaws:#x}")));
        }
    }
    Ok(Cpu {
        baseline: BASELINE.to_owned(),
        model: format!("signature {SIGNATURE:#x}"),
        features,
        vendor: vendor(cpuinfo).map(str::to_owned),
        tsc_khz: None,
    })
}

/// The same as Firecracker is told it before a machine boots. It refuses leaves that KVM does not offer.
pub(crate) fn template(host: &Supported) -> Value {
    let modifiers = PROCESSOR.iter().filter_map(|register| {
        let entry = host.leaf(register.leaf, register.subleaf)?;
        Some(json!({
            "leaf": format!("{:#x}", register.leaf),
            "subleaf": format!("{:#x}", register.subleaf),
            "flags": entry.flags,
            "modifiers": [{"register": register.name(), "bitmap": register.bitmap()}],
        }))
    });
    json!({"cpuid_modifiers": modifiers.collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPUINFO: &str = "vendor_id : GenuineIntel\n";

    /// One that has every bit set, of the leaves named here.
    fn host() -> Supported {
        let mut leaves: Vec<kvm_cpuid_entry2> = Vec::new();
        for Register { leaf, subleaf, .. } in PROCESSOR {
            if !leaves.iter().any(|entry| (entry.function, entry.index) == (leaf, subleaf)) {
                let all = u32::MAX;
                leaves.push(kvm_cpuid_entry2 {
                    function: leaf,
                    index: subleaf,
                    eax: all,
                    ebx: all,
                    ecx: all,
                    edx: all,
                    ..Default::default()
                });
            }
        }
        Supported { leaves, flaws: Some(0x2b) }
    }

    fn leaf(host: &mut Supported, function: u32) -> &mut kvm_cpuid_entry2 {
        host.leaves.iter_mut().find(|entry| (entry.function, entry.index) == (function, 0)).unwrap()
    }

    #[test]
    fn what_a_newer_processor_has_beyond_the_baseline_makes_no_difference() {
        let (newer, mut older) = (host(), host());
        // AVX-512, and SHA.
        leaf(&mut older, 7).ebx &= !bits(&[16, 17, 28, 29, 30, 31]);
        // MONITOR.
        leaf(&mut older, 1).ecx &= !bits(&[3]);
        leaf(&mut older, 1).eax = 0x000a_0f11;
        older.leaves.retain(|entry| (entry.function, entry.index) != (7, 1));
        assert_eq!(cpu(CPUINFO, &newer), cpu(CPUINFO, &older));
    }

    #[test]
    fn what_concerns_flaws_is_noted() {
        let (one, mut other) = (host(), host());
        other.flaws = Some(0x2f);
        assert_ne!(cpu(CPUINFO, &one), cpu(CPUINFO, &other));
        leaf(&mut other, 7).edx &= !TELLS_FLAWS;
        let features = cpu(CPUINFO, &other).unwrap().features;
        assert!(!features.iter().any(|feature| feature.starts_with("msr")), "{features:?}");
    }

    #[test]
    fn a_processor_that_lacks_something_of_the_baseline_is_told() {
        let mut old = host();
        // AVX2.
        leaf(&mut old, 7).ebx &= !bits(&[5]);
        let told = cpu(CPUINFO, &old).unwrap_err().to_string();
        assert_eq!(told, "bits 0x20 of ebx in leaf 0x7 of CPUID, which x86-64-v3 has");
        assert!(cpu(CPUINFO, &Supported::default()).is_err());
    }

    #[test]
    fn the_template_has_each_bit_of_the_leaves_that_there_are() {
        let mut host = host();
        host.leaves.retain(|entry| entry.function != 0x8000_0021);
        host.leaves.iter_mut().find(|entry| entry.function == 0xd).unwrap().flags = 1;
        let template = template(&host);
        let modifiers = template["cpuid_modifiers"].as_array().unwrap();
        assert_eq!(modifiers.len(), PROCESSOR.len() - 1);
        let of = |leaf: &str, register: &str| {
            let found =
                modifiers.iter().find(|it| it["leaf"] == leaf && it["modifiers"][0]["register"] == register);
            found.unwrap().clone()
        };
        let bitmap = |modifier: &Value| modifier["modifiers"][0]["bitmap"].as_str().unwrap().to_owned();
        assert_eq!(bitmap(&of("0x1", "eax")), "0b00000000000000110000011011110010");
        assert_eq!(bitmap(&of("0x7", "ebx")), "0b00000000000x0x00000000xxx0x0x00x");
        assert_eq!((&of("0xd", "eax")["flags"], &of("0x7", "ebx")["flags"]), (&json!(1), &json!(0)));
    }

    #[test]
    fn a_bitmap_lets_through_what_is_let_through_and_nothing_else() {
        for register in &PROCESSOR {
            for value in [0, u32::MAX, 0x1234_5678] {
                let apply = |(bit, told): (u32, char)| match told {
                    'x' => value & 1 << bit,
                    told => told.to_digit(2).unwrap() << bit,
                };
                let bitmap = register.bitmap();
                let applied =
                    (0..u32::BITS).rev().zip(bitmap[2..].chars()).map(apply).fold(0, |all, bit| all | bit);
                assert_eq!(applied, value & (register.needed | register.let_through) | register.set);
            }
        }
    }
}
