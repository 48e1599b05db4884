//! The scenarios: stories that must hold in both worlds, each ending with a clean audit.
//!
//! A scenario is an async function on a [`World`] that has a namespace of its own. It fails by returning an error that says what
//! was expected. Deleting its pods and asking for the audit is not its business: that is done after every one.

mod bad_input;
mod cloud_faults;
mod connectivity;
mod lifecycle;
mod node_faults;
mod real;
mod restarts;
mod run;
mod setup;

use crate::world::World;
use futures::future::BoxFuture;

pub use real::RealArgs;
pub use run::{Place, trials};

/// One story.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name: what holds.
    pub name: &'static str,
    /// Where it can be told.
    pub worlds: Worlds,
    /// The story.
    pub story: for<'a> fn(&'a mut World) -> BoxFuture<'a, anyhow::Result<()>>,
}

/// Where a scenario can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worlds {
    /// In both.
    Both,
    /// Only where faults can be made, or where there are several nodes.
    Embedded,
    /// Only where there is the real thing.
    Real,
}

/// `scenario!(Both, connectivity::pods_on_one_node)`: its name is the function's.
macro_rules! scenarios {
    ($($worlds:ident $module:ident :: $name:ident;)*) => {
        &[$(Scenario {
            name: stringify!($name),
            worlds: Worlds::$worlds,
            story: |world| Box::pin($module::$name(world)),
        }),*]
    };
}

/// All scenarios.
pub const ALL: &[Scenario] = scenarios! {
    Both connectivity::pods_on_one_node_reach_each_other;
    Embedded connectivity::pods_on_two_nodes_reach_each_other;
    Embedded connectivity::a_pod_that_runs_is_reached_by_the_first_packet;
    Both connectivity::a_pod_and_a_vm_reach_each_other;
    Both connectivity::pods_have_an_address_of_each_family_on_a_dual_stack_network;
    Embedded connectivity::pods_on_an_ipv6_network_reach_each_other;
    Both connectivity::a_pod_has_the_mtu_of_its_network;
    Both lifecycle::a_port_tells_whose_it_is;
    Both lifecycle::fifty_pods_at_once;
    Both lifecycle::a_pod_recreated_under_its_name_twenty_times;
    Both lifecycle::a_pod_deleted_while_its_add_waits;
    Both lifecycle::an_add_for_a_pod_that_is_gone_does_not_wait;
    Both lifecycle::a_force_deleted_pod_gives_its_port_back;
    Both lifecycle::a_completed_pod_gives_its_port_back;
    Both lifecycle::a_host_network_pod_is_left_alone;
    Both restarts::the_controller_is_killed_during_fifty_creates_and_deletes;
    Both restarts::a_standby_takes_over;
    Both restarts::a_daemon_is_killed_and_traffic_goes_on;
    Both restarts::deletion_works_with_a_fresh_daemon;
    Both restarts::deletion_may_be_repeated_and_needs_no_namespace;
    Both restarts::the_api_server_is_restarted;
    Real node_faults::open_vswitch_is_restarted;
    Embedded node_faults::a_node_is_deleted;
    Embedded node_faults::a_node_is_deleted_while_watches_lag;
    Embedded cloud_faults::neutron_answers_500;
    Embedded cloud_faults::neutron_answers_503;
    Embedded cloud_faults::neutron_answers_429_with_retry_after;
    Embedded cloud_faults::a_quota_is_used_up;
    Embedded cloud_faults::neutron_is_slow;
    Embedded cloud_faults::neutron_hangs;
    Embedded cloud_faults::neutron_drops_the_tags_of_ports;
    Embedded cloud_faults::an_answer_is_lost_after_the_work_was_done;
    Embedded cloud_faults::the_token_expires;
    Embedded cloud_faults::a_subnet_is_full;
    Embedded cloud_faults::no_address_is_lost_when_subnets_fill_up;
    Embedded cloud_faults::a_cloud_that_does_not_say_how_full_it_is;
    Embedded cloud_faults::neutron_is_away_for_a_while;
    Embedded setup::setup_does_at_once_what_it_can;
    Embedded bad_input::a_node_that_neutron_does_not_know_is_named;
    Embedded bad_input::a_cloud_that_cannot_be_used_ends_with_one_sentence;
    Embedded bad_input::a_malformed_kuryr_port_is_skipped;
    Both bad_input::malformed_cni_input_is_refused;
    Both bad_input::wrong_configuration_ends_with_one_sentence;
};
