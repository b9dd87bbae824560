//! The end-to-end suite: the server, the AWS CLI and curl, as a user has them. Needs root and what `make setup` and
//! `make build` make.
//!
//! Tests share one server and, where they can, one image, because a build takes a minute without hardware
//! virtualization. Those that kill the server have it to themselves and come last. At the end the server is stopped
//! and nothing of it may be left on the host.

#![allow(clippy::unwrap_used, reason = "a test")]

mod acme;
mod builds;
mod clients;
mod cloudwatch;
mod collector;
mod connectors;
mod continuity;
mod crash;
mod examples;
mod exposure;
mod fixture;
mod forwarding;
mod identity;
mod interface_endpoint;
mod isolation;
mod ledger;
mod lifecycle;
mod pressure;
mod rust_sdk;
mod session;
mod shell;
mod sockets;
mod traces;
mod trust;
mod tunnels;
mod versions;

use std::process::ExitCode;
use std::time::Instant;

use libtest_mimic::{Arguments, Trial};
use rekindle_e2e::machines;

/// Makes trials of functions, which fail by panicking.
macro_rules! trials {
    ($($module:ident { $($test:ident),+ $(,)? })+) => {
        vec![$($(
            Trial::test(concat!(stringify!($module), "::", stringify!($test)), || {
                let began = Instant::now();
                $module::$test();
                let (test, seconds) = (stringify!($test), began.elapsed().as_secs());
                println!("{test} ran on {} for {seconds} s", machines::last());
                Ok(())
            })
        ),+),+]
    };
}

fn main() -> ExitCode {
    let mut trials = trials! {
            session { the_cli_session_of_the_manual, requests_over_every_protocol, two_servers_side_by_side }
            clients { the_aws_cli, boto3, the_sdk_for_javascript, the_sdk_for_rust }
            identity {
                accounts_are_strangers,
                a_user_may_do_what_its_policy_allows,
                a_session_of_a_role_may_do_what_the_role_may,
                an_application_may_do_what_its_role_may,
                a_build_reads_what_its_role_may_read,
            }
            builds {
                artifacts_that_cannot_be_built_say_why,
                a_failed_step_fails_the_build_with_its_output,
                ready_hooks_that_fail_fail_the_build,
                an_application_that_ends_before_it_is_ready_fails_the_build,
                validate_hooks_that_fail_fail_the_build,
                a_ready_hook_may_answer_503_until_it_is_ready,
                stages_arguments_heredocs_users_and_ignored_files,
                steps_reach_the_network,
                a_build_uses_what_earlier_ones_of_its_account_left,
            }
            examples { sandbox }
            lifecycle {
                the_smallest_image_lives_sleeps_and_wakes,
                a_microvm_sleeps_again_and_again,
                as_many_spares_wait_as_were_launched_together,
                a_failing_run_hook_terminates,
                a_failing_suspend_hook_terminates,
                an_idle_microvm_sleeps_and_a_request_wakes_it,
                without_auto_resume_a_request_is_refused,
                sleeping_too_long_terminates,
                living_too_long_terminates,
                the_end_of_the_application_terminates,
                an_application_is_asked_to_end_and_its_last_words_are_kept,
                what_microvms_use_is_accounted,
                memory_that_a_guest_frees_goes_back,
                clones_differ_and_know_the_time,
                suspend_and_resume_lose_nothing,
                a_request_does_not_wait_for_the_disk_of_a_suspension,
                connections_to_others_end_with_a_life,
                clients_connections_end_with_a_life,
            }
            traces {
                a_launch_and_a_wake_continue_their_clients_traces,
                rekindle_trace_shows_where_the_time_went,
            }
            forwarding { logs_are_forwarded_to_a_collector_and_to_another_server }
            tunnels { tcp_and_tls_reach_their_ports }
            shell { a_shell_beside_the_application }
            isolation {
                every_vmm_is_confined_on_its_own,
                a_guest_reaches_public_addresses_and_nothing_else,
                the_container_has_only_dockers_rights,
            }
            connectors {
                a_microvm_reaches_its_connectors_networks_in_every_life,
                a_restart_gives_a_microvm_its_networks_again,
            }
            interface_endpoint { boto3_in_a_guest_may_do_what_its_role_may }
            versions { a_version_goes_with_its_files_and_the_last_one_stays }
            continuity {
                nothing_runs_between_two_lives_and_clones_differ,
                what_a_process_holds_survives_and_its_clocks_go_on,
                a_damaged_snapshot_is_not_used_and_says_so,
            }
            ledger { a_database_loses_nothing_over_suspensions_and_crashes }
            trust {
                the_local_authority_is_trusted_once_it_is_installed,
                tokens_change_their_key_and_can_all_be_ended,
                an_operators_certificate_is_replaced_under_open_connections,
            }
            acme { certificates_are_issued_renewed_and_kept }
            pressure { a_full_host_refuses_and_harms_nobody }
            crash {
                a_running_microvm_goes_on,
                a_suspended_microvm_resumes,
                a_build_is_finished_or_failed,
                killed_during_a_launch,
                killed_during_a_suspend,
                killed_during_a_terminate,
            }
    };
    // `make soak` and `make examples`: each takes many minutes.
    let long = trials! { ledger { soak } examples { node, ci_runner, notebook } };
    trials.extend(long.into_iter().map(|trial| trial.with_ignored_flag(true)));
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    let failed = conclusion.has_failed();
    if failed {
        fixture::print_log();
    }
    // Even then: what a failed test left must not stay on the host.
    fixture::stop();
    if failed { ExitCode::from(101) } else { ExitCode::SUCCESS }
}
