//! A database in the guest that is written throughout, across suspensions and a server that is killed at varying moments:
//! no row that was committed is lost, and none is changed.

use std::time::{Duration, Instant};

use rekindle_e2e::{Json, Server};

use crate::crash::Survivor;
use crate::fixture;

/// What `make soak` is told to begin its numbers from; printed, so that a run can be repeated.
const SEED_VARIABLE: &str = "REKINDLE_SOAK_SEED";
/// How many cycles it is to take, for a slice of it.
const CYCLES_VARIABLE: &str = "REKINDLE_SOAK_CYCLES";
const SOAK_CYCLES: u64 = 200;
/// The longest that is waited in a state before the next step.
const LONGEST_PAUSE_MS: u64 = 300;

/// When the server is killed in a cycle.
#[derive(Debug, Clone, Copy)]
enum Moment {
    Running,
    Suspending,
    Suspended,
    Resuming,
}

const MOMENTS: [Moment; 4] = [Moment::Running, Moment::Suspending, Moment::Suspended, Moment::Resuming];

/// Numbers that follow from a seed (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn pause(&mut self) {
        std::thread::sleep(Duration::from_millis(self.next() % LONGEST_PAUSE_MS));
    }
}

pub(crate) fn a_database_loses_nothing_over_suspensions_and_crashes() {
    cycles(10, 4, 1);
}

/// 200 cycles, in 50 of which the server is killed.
pub(crate) fn soak() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let count = number(CYCLES_VARIABLE).unwrap_or(SOAK_CYCLES);
    cycles(count, count / 4, number(SEED_VARIABLE).unwrap_or(1));
}

fn cycles(cycles: u64, kills: u64, seed: u64) {
    let mut server = fixture::exclusive();
    let mut numbers = Numbers(seed);
    let began = Instant::now();
    let survivor = Survivor::run(&server);
    survivor.post(&server, "/ledger");
    let mut killed = 0;
    for cycle in 1..=cycles {
        // Spread evenly over the cycles, each moment in its turn.
        let moment = (cycle * kills / cycles > killed).then(|| MOMENTS[killed as usize % MOMENTS.len()]);
        killed += u64::from(moment.is_some());
        let committed = survivor.get(&server, "/ledger");
        assert_eq!(committed["failure"], Json::Null, "cycle {cycle} of seed {seed}: {committed}");
        numbers.pause();
        sleep_and_wake(&mut server, &survivor, moment, &mut numbers);
        let row = survivor.get(&server, &format!("/ledger/row?number={}", committed["number"]));
        let lost = || format!("cycle {cycle} of seed {seed}, killed {moment:?}: {committed} became {row}");
        assert!(committed["number"] == 0 || row["checksum"] == committed["checksum"], "{}", lost());
        check(&survivor.get(&server, "/ledger/check"), cycle, seed);
    }
    let whole = survivor.get(&server, "/ledger/check?whole=1");
    check(&whole, cycles, seed);
    println!(
        "seed {seed}: {} rows over {cycles} cycles, the server killed in {killed}, in {:.0} s",
        whole["rows"],
        began.elapsed().as_secs_f64()
    );
    assert_eq!(killed, kills);
    survivor.end(&server);
}

fn check(ledger: &Json, cycle: u64, seed: u64) {
    let whole = ledger["wrong"].is_null() && ledger["failure"].is_null() && ledger["integrity"] == "ok";
    assert!(whole, "cycle {cycle} of seed {seed}: {ledger}");
}

fn sleep_and_wake(server: &mut Server, survivor: &Survivor, moment: Option<Moment>, numbers: &mut Numbers) {
    if let Some(Moment::Running) = moment {
        server.kill();
        numbers.pause();
        server.restart();
        survivor.wait(server, &["RUNNING"]);
    }
    ask(server, survivor, "suspend");
    if let Some(Moment::Suspending) = moment {
        numbers.pause();
        server.restart();
    }
    survivor.wait(server, &["SUSPENDED"]);
    if let Some(Moment::Suspended) = moment {
        server.restart();
        survivor.wait(server, &["SUSPENDED"]);
    }
    ask(server, survivor, "resume");
    if let Some(Moment::Resuming) = moment {
        numbers.pause();
        server.restart();
    }
    survivor.wait(server, &["RUNNING"]);
}

/// An operation of the API, without the AWS CLI, which takes as long as the operation.
fn ask(server: &Server, survivor: &Survivor, operation: &str) {
    let path = format!("/2025-09-09/microvms/{}/{operation}", survivor.id);
    let answer = server.api(&path, &["--request", "POST", "--data", ""]);
    answer.unwrap_or_else(|error| panic!("{operation}: {error}")).expect(200);
}
