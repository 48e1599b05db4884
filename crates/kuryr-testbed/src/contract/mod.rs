//! The contract: what Kuryr relies on of Keystone, Neutron and Octavia with its OVN provider, stated once and tried on the embedded cloud and on a real one.
//!
//! ```text
//!  ALL ─▶ run ─▶ clause(&Site) ─▶ kuryr_openstack::Cloud ─▶ embedded cloud, or the one of a clouds.yaml
//!                     └── what it makes is remembered by the Site, and deleted at its end
//! ```
//!
//! A clause says only what is true in both worlds: where real clouds differ among themselves Kuryr must not care, and neither does the
//! clause. It asks through the client that Kuryr uses, so it holds the client to its word, too. A clause that fails in the
//! real world shows where the embedded cloud, on which all other tests stand, is not as the real one.

mod floating_ips;
mod groups;
mod identity;
mod lists;
mod load_balancers;
mod networks;
mod ports;
mod run;
mod site;
mod trunks;

use futures::future::BoxFuture;

pub use run::{AT_A_TIME, Place, RealArgs, trials};
pub use site::Site;

/// One thing that is relied on.
#[derive(Clone, Copy)]
pub struct Clause {
    /// Its name: what holds.
    pub name: &'static str,
    /// Whether it is tried while others are: one that takes away what all share is not.
    pub beside: Beside,
    /// Tries it.
    pub holds: for<'a> fn(&'a Site) -> BoxFuture<'a, anyhow::Result<()>>,
}

/// Who may use the cloud while a clause is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Other clauses: it asks only about what it has made itself.
    Others,
    /// Nobody: it changes what the project may have.
    Nobody,
}

macro_rules! clauses {
    ($($beside:ident $module:ident :: $name:ident;)*) => {
        &[$(Clause {
            name: stringify!($name),
            beside: Beside::$beside,
            holds: |site| Box::pin($module::$name(site)),
        }),*]
    };
}

/// All clauses.
pub const ALL: &[Clause] = clauses! {
    Others identity::a_wrong_password_is_refused_for_good;
    Others identity::the_project_and_the_extensions_are_told;
    Others ports::a_new_port_is_down_and_as_it_was_asked_for;
    Others ports::a_port_without_groups_has_none;
    Others ports::a_bulk_is_answered_in_its_order;
    Others ports::a_bulk_is_all_or_nothing;
    Others ports::a_port_gets_an_address_of_each_subnet_that_it_names;
    Others ports::a_full_subnet_is_told_from_other_refusals;
    Others ports::a_bulk_that_does_not_fit_into_a_subnet_makes_nothing;
    Others ports::how_full_a_subnet_is_is_counted_by_its_ports;
    Others ports::an_address_that_is_taken_is_refused_to_its_owner;
    Others ports::a_network_that_is_not_there_is_not_found;
    Others ports::an_unknown_host_fails_the_binding_and_not_the_port;
    Others ports::a_bound_port_says_how_to_plug_it;
    Others ports::an_update_of_an_old_revision_is_refused;
    Others ports::what_is_absent_is_not_found_and_may_be_deleted;
    Others lists::tags_given_at_creation_are_found_by_a_filter;
    Others lists::an_object_is_found_by_all_of_several_tags_only;
    Others lists::objects_are_found_by_any_of_several_tags;
    Others lists::a_list_has_all_pages_once;
    Others lists::a_list_by_ids_has_those_that_there_are;
    Others lists::tags_are_set_as_a_whole;
    Others lists::a_tag_may_have_sixty_characters;
    Others groups::a_new_group_lets_everything_out;
    Others groups::rules_are_made_in_bulk_all_or_none;
    Others groups::a_rule_that_is_there_is_refused;
    Others groups::a_group_in_use_is_kept;
    Others groups::groups_come_with_their_rules;
    Nobody groups::a_used_up_quota_is_told_and_makes_nothing;
    Others groups::a_rule_reads_back_as_it_was_asked_for;
    Others groups::a_rule_about_a_group_goes_with_that_group;
    Others groups::a_port_changes_all_its_groups_in_one_update;
    Nobody groups::a_used_up_quota_of_groups_is_told;
    Others networks::a_network_has_an_mtu_that_can_be_changed;
    Others networks::a_subnet_has_a_gateway;
    Others networks::overlapping_subnets_of_one_network_are_refused;
    Others networks::a_router_joins_a_subnet_at_its_gateway;
    Others networks::what_is_in_use_is_kept;
    Others floating_ips::a_floating_ip_leads_to_a_port_until_it_is_parted_from_it;
    Others floating_ips::a_port_that_goes_away_leaves_its_floating_ip;
    Others floating_ips::an_address_outside_is_given_once;
    Others floating_ips::an_address_inside_has_one_floating_ip;
    Others floating_ips::a_floating_ip_needs_a_way_outside;
    Others floating_ips::floating_ips_are_found_by_tag_and_description;
    Others trunks::subports_are_added_all_or_none;
    Others trunks::a_trunk_is_found_by_its_parent;
    Others trunks::one_id_has_one_subport_and_may_be_used_again_at_once;
    Others trunks::the_same_id_is_free_on_another_trunk;
    Others trunks::a_subport_is_marked_and_loses_its_mark;
    Others trunks::a_port_becomes_anothers_where_it_is;
    Others trunks::a_port_that_has_a_device_is_no_subport;
    Others trunks::a_port_is_on_one_trunk_only;
    Others trunks::subports_that_are_not_there_are_not_removed;
    Others trunks::ports_of_a_trunk_are_kept;
    Others trunks::a_subport_needs_an_mtu_that_its_parent_has;
    Others trunks::a_trunk_that_is_gone_is_told_from_a_port_that_is_gone;
    Others trunks::subports_stay_ports_when_their_trunk_goes;
    Others trunks::address_pairs_are_changed_by_revision_and_limited;
    Others load_balancers::the_api_tells_its_version;
    Others load_balancers::a_tree_is_made_in_one_request;
    Others load_balancers::a_change_of_a_pending_load_balancer_is_refused_or_done;
    Others load_balancers::one_number_serves_each_transport_once;
    Others load_balancers::a_batch_makes_the_members_those_that_it_names;
    Others load_balancers::what_the_provider_cannot_do_is_told_and_changes_nothing;
    Others load_balancers::a_load_balancer_goes_with_all_that_is_in_it;
    Others load_balancers::the_address_of_a_vip_is_chosen_and_given_once;
    Others load_balancers::a_full_subnet_has_no_vip;
    Others load_balancers::the_port_of_a_vip_holds_its_address;
    Others load_balancers::additional_vips_are_of_the_same_network;
    Others load_balancers::load_balancers_are_found_by_all_of_several_tags;
    Nobody load_balancers::a_used_up_quota_of_load_balancers_is_told;
};
