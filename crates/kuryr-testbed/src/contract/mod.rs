//! The contract: what Kuryr relies on of Keystone and Neutron, stated once and tried on the embedded cloud and on a real one.
//!
//! ```text
//!  ALL ─▶ run ─▶ clause(&Site) ─▶ kuryr_openstack::Cloud ─▶ embedded cloud, or the one of a clouds.yaml
//!                     └── what it makes is remembered by the Site, and deleted at its end
//! ```
//!
//! A clause says only what is true in both worlds: where real clouds differ among themselves Kuryr must not care, and neither does the
//! clause. It asks through the client that Kuryr uses, so it holds the client to its word, too. A clause that fails in the
//! real world shows where the embedded cloud, on which all other tests stand, is not as the real one.

mod groups;
mod identity;
mod lists;
mod networks;
mod ports;
mod run;
mod site;

use futures::future::BoxFuture;

pub use run::{Place, RealArgs, trials};
pub use site::Site;

/// One thing that is relied on.
#[derive(Clone, Copy)]
pub struct Clause {
    /// Its name: what holds.
    pub name: &'static str,
    /// Tries it.
    pub holds: for<'a> fn(&'a Site) -> BoxFuture<'a, anyhow::Result<()>>,
}

macro_rules! clauses {
    ($($module:ident :: $name:ident;)*) => {
        &[$(Clause { name: stringify!($name), holds: |site| Box::pin($module::$name(site)) }),*]
    };
}

/// All clauses.
pub const ALL: &[Clause] = clauses! {
    identity::a_wrong_password_is_refused_for_good;
    identity::the_project_and_the_extensions_are_told;
    ports::a_new_port_is_down_and_as_it_was_asked_for;
    ports::a_port_without_groups_has_none;
    ports::a_bulk_is_answered_in_its_order;
    ports::a_bulk_is_all_or_nothing;
    ports::a_port_gets_an_address_of_each_subnet_that_it_names;
    ports::a_full_subnet_is_told_from_other_refusals;
    ports::a_bulk_that_does_not_fit_into_a_subnet_makes_nothing;
    ports::how_full_a_subnet_is_is_counted_by_its_ports;
    ports::an_address_that_is_taken_is_refused_to_its_owner;
    ports::a_network_that_is_not_there_is_not_found;
    ports::an_unknown_host_fails_the_binding_and_not_the_port;
    ports::a_bound_port_says_how_to_plug_it;
    ports::an_update_of_an_old_revision_is_refused;
    ports::what_is_absent_is_not_found_and_may_be_deleted;
    lists::tags_given_at_creation_are_found_by_a_filter;
    lists::an_object_is_found_by_all_of_several_tags_only;
    lists::a_list_has_all_pages_once;
    lists::a_list_by_ids_has_those_that_there_are;
    lists::tags_are_set_as_a_whole;
    lists::a_tag_may_have_sixty_characters;
    groups::a_new_group_lets_everything_out;
    groups::rules_are_made_in_bulk_all_or_none;
    groups::a_rule_that_is_there_is_refused;
    groups::a_group_in_use_is_kept;
    groups::groups_come_with_their_rules;
    groups::a_used_up_quota_is_told_and_makes_nothing;
    networks::a_network_has_an_mtu_that_can_be_changed;
    networks::a_subnet_has_a_gateway;
    networks::overlapping_subnets_of_one_network_are_refused;
    networks::a_router_joins_a_subnet_at_its_gateway;
    networks::what_is_in_use_is_kept;
};
