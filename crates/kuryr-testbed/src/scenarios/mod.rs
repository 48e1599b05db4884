//! The scenarios: stories that must hold in both worlds, each ending with a clean audit.
//!
//! A scenario is an async function on a [`World`] that has a namespace of its own. It fails by returning an error that says what
//! was expected. Deleting its pods and asking for the audit is not its business: that is done after every one.

mod bad_input;
mod cloud_faults;
mod connectivity;
mod fullness;
mod lifecycle;
mod nested;
mod nested_pools;
mod nested_shared;
mod node_faults;
mod policies;
mod policies_amphora;
mod policies_exec;
mod policies_faults;
mod policies_grid;
mod policies_peers;
mod policies_ports;
mod policies_ways;
mod pools;
mod pools_faults;
mod reach;
mod real;
mod real_nested;
mod restarts;
mod run;
mod service_annotations;
mod service_faults;
mod service_kills;
mod service_kinds;
mod service_times;
mod service_users;
mod services;
mod setup;
mod together;
mod tools;
mod verify;

use crate::world::World;
use futures::future::BoxFuture;

pub use real::RealArgs;
pub use run::{at_a_time, trials, trials_apart};
pub use together::tell_in_real_world;

/// One story.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name: what holds.
    pub name: &'static str,
    /// Where it can be told.
    pub worlds: Worlds,
    /// Whether it can be told in the real world while others are.
    pub beside: Beside,
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

/// Whom a scenario suffers beside it in the real world, which is one for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nobody: it ends or configures what all have, or takes times.
    Nobody,
    /// Others: all that it touches is in its own namespaces.
    Others,
    /// Nobody, and it leaves virtual machines running, which are no rest for others: it comes last.
    Machines,
}

/// `Both + Others connectivity::pods_on_one_node;`: its name is the function's.
macro_rules! scenarios {
    (@beside) => { Beside::Nobody };
    (@beside $beside:ident) => { Beside::$beside };
    ($($worlds:ident $(+ $beside:ident)? $module:ident :: $name:ident;)*) => {
        &[$(Scenario {
            name: stringify!($name),
            worlds: Worlds::$worlds,
            beside: scenarios!(@beside $($beside)?),
            story: |world| Box::pin($module::$name(world)),
        }),*]
    };
}

/// All scenarios.
pub const ALL: &[Scenario] = scenarios! {
    Both + Others connectivity::pods_on_one_node_reach_each_other;
    Embedded connectivity::pods_on_two_nodes_reach_each_other;
    Embedded connectivity::a_pod_that_runs_is_reached_by_the_first_packet;
    Both + Others connectivity::a_pod_and_a_vm_reach_each_other;
    Both connectivity::pods_have_an_address_of_each_family_on_a_dual_stack_network;
    Embedded connectivity::pods_on_an_ipv6_network_reach_each_other;
    Both + Others connectivity::a_pod_has_the_mtu_of_its_network;
    Both + Others lifecycle::a_port_tells_whose_it_is;
    Both + Others lifecycle::fifty_pods_at_once;
    Both + Others lifecycle::a_pod_recreated_under_its_name_twenty_times;
    Both lifecycle::a_pod_deleted_while_its_add_waits;
    Both + Others lifecycle::an_add_for_a_pod_that_is_gone_does_not_wait;
    Both + Others lifecycle::a_force_deleted_pod_gives_its_port_back;
    Both + Others lifecycle::a_completed_pod_gives_its_port_back;
    Both + Others lifecycle::a_host_network_pod_is_left_alone;
    Both restarts::the_controller_is_killed_during_fifty_creates_and_deletes;
    Both restarts::a_standby_takes_over;
    Both restarts::a_daemon_is_killed_and_traffic_goes_on;
    Both restarts::deletion_works_with_a_fresh_daemon;
    Embedded restarts::a_daemon_starts_while_the_api_server_is_away;
    Both + Others restarts::deletion_may_be_repeated_and_needs_no_namespace;
    Both restarts::the_api_server_is_restarted;
    Real node_faults::open_vswitch_is_restarted;
    Embedded node_faults::a_node_is_deleted;
    Embedded node_faults::a_node_that_is_rebooted_gets_its_pods_back;
    Embedded node_faults::a_node_is_taken_out_of_service;
    Embedded node_faults::the_deletion_of_a_sandbox_is_lost;
    Embedded node_faults::a_node_is_deleted_while_watches_lag;
    Embedded cloud_faults::neutron_answers_500;
    Embedded cloud_faults::neutron_answers_503;
    Embedded cloud_faults::neutron_answers_429_with_retry_after;
    Both cloud_faults::a_quota_is_used_up;
    Embedded cloud_faults::neutron_is_slow;
    Embedded cloud_faults::neutron_hangs;
    Embedded cloud_faults::neutron_drops_the_tags_of_ports;
    Embedded cloud_faults::an_answer_is_lost_after_the_work_was_done;
    Embedded cloud_faults::an_answer_comes_after_the_client_gave_up;
    Embedded cloud_faults::a_pod_is_deleted_after_a_lost_answer;
    Embedded cloud_faults::a_bulk_is_half_done;
    Embedded cloud_faults::an_address_clashes_inside_a_bulk;
    Embedded cloud_faults::the_token_expires;
    Both cloud_faults::a_subnet_is_full;
    Embedded cloud_faults::no_address_is_lost_when_subnets_fill_up;
    Embedded cloud_faults::a_cloud_that_does_not_say_how_full_it_is;
    Embedded cloud_faults::neutron_is_away_for_a_while;
    Embedded nested::a_pod_on_a_virtual_machine_is_a_subport_of_its_trunk;
    Embedded nested::pods_of_machines_and_of_bare_metal_are_in_one_cluster;
    Embedded nested::fifty_pods_of_a_machine_share_requests;
    Embedded nested::two_hundred_pods_of_a_machine_at_once;
    Embedded nested::a_bulk_for_a_trunk_is_half_done;
    Embedded nested::the_controller_is_killed_between_port_and_subport;
    Embedded nested::the_controller_is_killed_while_pods_of_a_machine_come_and_go;
    Embedded nested::a_trunk_is_deleted_behind_our_back;
    Embedded nested::a_trunk_that_nobody_has_to_do_with_is_missed_at_the_next_look;
    Embedded nested::a_trunk_that_goes_with_its_pods_holds_nothing_up;
    Embedded nested::subports_that_somebody_moved_are_put_back;
    Embedded nested::a_machine_is_deleted;
    Embedded nested::what_a_machine_lacks_is_told_and_ends_when_it_has_it;
    Embedded nested::a_full_trunk_tells_the_next_pod_why;
    Embedded fullness::a_node_says_that_it_is_full_before_a_pod_fails;
    Embedded fullness::a_node_that_is_full_of_others_says_so_without_any_pod;
    Embedded fullness::a_node_whose_port_takes_no_more_pods_says_so;
    Embedded nested::neutron_fails_while_pods_come_to_a_trunk;
    Both + Others nested::a_subport_that_stays_down_is_put_back;
    Embedded nested_pools::a_pod_of_a_machine_gets_a_subport_that_is_ready;
    Embedded nested_pools::fifty_pods_of_a_machine_find_subports;
    Embedded nested_pools::pods_of_a_machine_come_back_to_the_subports_that_were_there;
    Embedded nested_pools::a_subport_that_was_made_for_a_pod_comes_to_the_pool;
    Embedded nested_pools::a_burst_larger_than_the_pool_of_a_machine_is_made_in_bulks;
    Embedded nested_pools::the_controller_is_killed_while_it_fills_the_pool_of_a_machine;
    Embedded nested_pools::the_controller_is_killed_while_pods_take_subports_from_the_pool;
    Embedded nested_pools::a_trunk_with_spare_subports_is_deleted_behind_our_back;
    Both + Machines nested_pools::a_drained_machine_has_no_spare_subports;
    Both + Machines nested_pools::spare_subports_make_way_when_the_quota_is_used_up;
    Embedded nested_pools::a_pod_of_a_machine_gets_its_groups_before_its_subport;
    Embedded nested_pools::a_machine_that_is_not_found_holds_up_no_other;
    Embedded nested_pools::an_operator_fills_and_drains_the_pool_of_a_machine_by_its_name;
    Embedded nested_pools::pools_of_machines_that_are_switched_off_leave_nothing_behind;
    Embedded nested_pools::a_spare_subport_that_stays_down_is_put_back;
    Embedded nested_shared::pods_share_the_port_of_their_machine;
    Embedded nested_shared::what_somebody_else_does_to_a_shared_port_meanwhile_is_kept;
    Embedded nested_shared::a_policy_says_that_it_does_not_hold_for_pods_that_share_a_port;
    Embedded nested_shared::a_machine_that_is_rebooted_gets_its_pods_back;
    Embedded nested_shared::the_controller_is_killed_while_pods_come_to_a_shared_port;
    Embedded pools::a_burst_larger_than_the_pools_is_made_in_bulks;
    Embedded pools::a_burst_on_empty_pools_is_made_in_bulks;
    Both pools::pods_that_come_back_get_the_ports_that_were_there;
    Both pools::a_pool_that_shrinks_takes_no_port_from_a_pod;
    Both pools::a_drained_node_has_no_spare_ports;
    Embedded pools::a_pod_that_finds_a_port_waits_for_no_other;
    Embedded pools::a_restarted_controller_finds_its_pools_with_one_list;
    Both pools::a_pod_that_a_policy_isolates_gets_its_groups_before_its_port;
    Embedded pools::ports_of_pools_are_named_after_their_pods_where_that_is_wanted;
    Embedded pools::an_operator_fills_and_drains_pools;
    Embedded pools_faults::pools_hand_out_while_neutron_is_away;
    Embedded pools_faults::the_controller_is_killed_while_it_fills_pools;
    Both pools_faults::the_controller_is_killed_while_pods_take_from_pools;
    Both pools_faults::the_controller_is_killed_at_any_moment_of_a_refill;
    Embedded pools_faults::a_bulk_of_spare_ports_is_half_done;
    Embedded pools_faults::a_bulk_of_spare_ports_fails_and_then_its_parts_are_made;
    Embedded pools_faults::the_answer_of_a_bulk_of_spare_ports_is_lost;
    Embedded pools_faults::spare_ports_make_way_when_the_quota_is_used_up;
    Embedded pools_faults::spare_ports_make_way_when_subnets_are_full;
    Embedded pools_faults::pools_that_are_switched_off_leave_nothing_behind;
    Embedded setup::setup_does_at_once_what_it_can;
    Both reach::can_reach_answers_and_says_if_neutron_does_otherwise;
    Both + Others verify::every_kind_of_rule_is_proven_to_be_enforced;
    Embedded verify::a_cloud_that_does_not_enforce_a_kind_of_rule_does_not_pass;
    Embedded verify::what_a_run_that_was_killed_has_left_is_removed_by_the_next;
    Embedded bad_input::a_node_that_neutron_does_not_know_is_named;
    Embedded bad_input::a_cloud_that_cannot_be_used_ends_with_one_sentence;
    Embedded bad_input::a_malformed_kuryr_port_is_skipped;
    Embedded bad_input::a_kuryr_port_that_was_spoilt_is_made_anew_with_the_same_port;
    Embedded bad_input::a_malformed_kuryr_load_balancer_hides_nothing_else;
    Embedded bad_input::an_annotation_that_is_no_host_is_ignored_and_told;
    Both + Others bad_input::malformed_cni_input_is_refused;
    Both bad_input::wrong_configuration_ends_with_one_sentence;
    Both + Others services::a_service_leads_to_all_its_endpoints;
    Both + Others services::a_vm_reaches_a_service;
    Both service_times::a_service_answers_as_soon_as_octavia_is_done;
    Both + Others services::tcp_and_udp_at_one_number;
    Both + Others services::a_pod_reaches_itself_through_its_service;
    Both + Others services::a_service_is_scaled_up_and_down;
    Both + Others services::a_terminating_endpoint_keeps_its_connections;
    Both services::a_rollout_under_traffic_loses_no_connection;
    Both + Others services::a_client_stays_with_its_endpoint;
    Both + Others services::many_services_at_once;
    Embedded services::a_new_service_is_one_request;
    Both + Others services::endpoints_that_flap_come_to_rest;
    Both service_kinds::a_floating_ip_leads_to_a_service;
    Both service_kinds::a_service_changes_its_type_in_place;
    Both + Others service_kinds::a_node_port_of_every_node_leads_to_a_service;
    Embedded service_kinds::an_external_ip_leads_to_a_service;
    Embedded service_kinds::a_local_node_port_leads_to_pods_of_its_node_only;
    Both + Others service_kinds::a_service_without_selector_has_endpoints_made_by_hand;
    Both + Others service_kinds::a_named_port_may_be_another_number_in_each_pod;
    Both + Others service_kinds::headless_services_and_names_have_no_load_balancer;
    Both + Others service_kinds::the_kubernetes_service_leads_to_the_api_server;
    Both + Others service_kinds::a_service_is_recreated_at_once;
    Both + Others service_kinds::a_service_goes_before_it_is_ready;
    Both + Others service_kinds::a_service_and_its_namespace_go_together;
    Both + Others service_kinds::a_wrong_annotation_is_told_and_holds_up_nothing_else;
    Embedded service_annotations::an_amphora_does_what_annotations_ask_for;
    Embedded service_annotations::what_ovn_cannot_do_is_told_and_the_service_works;
    Embedded service_annotations::a_service_says_how_it_is_reached_from_outside;
    Embedded service_annotations::a_floating_ip_is_of_the_subnet_that_its_service_names;
    Embedded service_annotations::members_that_are_no_pods_have_the_subnet_that_is_named;
    Embedded service_annotations::a_certificate_is_not_used_and_nobody_is_let_in_without;
    Embedded service_annotations::an_address_outside_outlives_its_service;
    Embedded service_annotations::a_shared_load_balancer_is_used_and_never_deleted;
    Embedded service_annotations::a_service_has_its_address_where_it_asks_for_it;
    Embedded service_annotations::no_address_is_left_for_a_vip;
    Embedded service_kinds::a_service_of_both_families_has_a_vip_for_each;
    Embedded service_kinds::sctp_goes_to_the_endpoints;
    Embedded service_kinds::endpoints_that_are_not_ready_serve_where_that_is_asked_for;
    Embedded service_faults::octavia_answers_500;
    Embedded service_faults::octavia_answers_409;
    Embedded service_faults::octavia_hangs;
    Embedded service_faults::octavia_takes_long_to_answer;
    Embedded service_faults::the_answer_of_a_new_load_balancer_is_lost;
    Embedded service_faults::a_load_balancer_is_immutable_for_long;
    Embedded service_faults::the_quota_of_load_balancers_is_used_up;
    Embedded service_faults::no_address_is_left_outside;
    Embedded service_faults::a_cluster_ip_is_taken_by_somebody_else;
    Embedded service_faults::a_load_balancer_goes_error;
    Embedded service_faults::an_amphora_goes_error_and_is_failed_over;
    Embedded service_faults::a_load_balancer_is_deleted_behind_our_back;
    Embedded service_faults::a_member_is_removed_behind_our_back;
    Embedded service_faults::the_controller_is_killed_during_the_life_of_services;
    Embedded service_kills::the_controller_dies_after_each_write_to_the_cloud;
    Embedded service_kills::the_controller_dies_after_each_write_to_kubernetes;
    Real + Others service_users::coredns_answers_pods_over_udp_and_tcp;
    Real service_users::haproxy_routes_host_names_from_outside_to_services;
    Both policies_peers::policies_let_in_whom_their_selectors_mean;
    Both policies_ports::policies_let_through_what_their_ports_say;
    Embedded policies_ports::policies_tell_sctp_from_the_rest;
    Both policies_ways::policies_hold_in_the_directions_that_they_name;
    Both policies_ways::policies_tell_addresses_apart;
    Both policies_ways::policies_hold_for_both_families;
    Both policies::policies_follow_labels_of_pods_and_namespaces;
    Both policies::policies_follow_pods_that_come_and_go;
    Both policies::policies_are_changed_deleted_and_made_anew;
    Both + Others policies::established_connections_end_when_a_policy_forbids_them;
    Both policies::a_pod_is_closed_from_its_first_packet;
    Both + Others policies::policies_hold_through_services;
    Embedded policies::a_pods_own_node_reaches_it_and_no_other;
    Both policies::a_vm_is_no_pod;
    Both policies::isolated_pods_come_as_others_go;
    Both policies::many_policies_at_once;
    Embedded policies_amphora::an_amphora_lets_in_whom_the_pods_behind_it_would;
    Embedded policies_amphora::nothing_gets_through_an_amphora_while_policies_change;
    Embedded policies_amphora::who_comes_in_where_pods_behind_an_amphora_differ;
    Embedded policies_amphora::a_restarted_controller_interrupts_nothing_behind_an_amphora;
    Embedded policies_exec::a_policy_holds_on_fifty_pods_within_its_budget;
    Embedded policies_exec::a_restarted_controller_finds_policies_as_they_are;
    Embedded policies_faults::neutron_answers_500_to_policies;
    Embedded policies_faults::neutron_drops_connections_of_policies;
    Embedded policies_faults::the_answers_to_policies_are_lost;
    Embedded policies_faults::the_controller_is_killed_during_each_step_of_a_policy;
    Embedded policies_faults::the_quota_of_security_groups_is_used_up;
    Embedded policies_faults::the_quota_of_security_group_rules_is_used_up;
    Embedded policies_faults::what_was_made_for_policies_is_changed_behind_our_back;
    Embedded policies_faults::address_groups_that_let_everyone_in_are_not_used;
    Both tools::a_node_is_audited_and_cleaned_without_credentials;
    Embedded tools::the_status_names_what_does_not_work_and_nothing_else;
    Embedded tools::secrets_stay_out_of_logs_that_tell_everything;
    Embedded tools::what_setup_left_behind_is_listed_and_goes_if_nothing_uses_it;
    Both tools::an_audit_that_cannot_look_does_not_say_that_something_is_wrong;
    Real + Machines real_nested::pods_in_virtual_machines_and_all_others_reach_each_other;
    Real + Machines real_nested::pods_of_macvlan_and_ipvlan_and_all_others_reach_each_other;
    Real + Machines real_nested::services_lead_to_and_from_pods_in_virtual_machines;
    Real + Machines real_nested::policies_hold_between_pods_of_one_virtual_machine;
    Real + Machines real_nested::a_daemon_in_a_virtual_machine_is_killed_and_traffic_goes_on;
    Real + Machines real_nested::the_trunk_of_a_virtual_machine_is_deleted_and_made_again;
    Real + Machines real_nested::the_controller_is_killed_while_pods_in_machines_come_and_go;
    Real + Machines real_nested::a_virtual_machine_that_was_switched_off_gets_its_pods_back;
    // The last, as no other boots the machine again.
    Both + Machines nested_pools::a_machine_with_spare_subports_is_deleted;
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_scenario_has_a_name_of_its_own_that_a_namespace_can_have() {
        let names: BTreeSet<&str> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), ALL.len());
        let long: Vec<&&str> = names.iter().filter(|name| name.len() > 63).collect();
        assert!(long.is_empty(), "{long:?}");
    }

    #[test]
    fn only_scenarios_of_the_real_world_say_whom_they_suffer_there() {
        let beside = |scenario: &&Scenario| scenario.beside != Beside::Nobody;
        let embedded: Vec<&str> =
            ALL.iter().filter(beside).filter(|one| one.worlds == Worlds::Embedded).map(|one| one.name).collect();
        assert!(embedded.is_empty(), "{embedded:?}");
    }
}
