//! Whether a flow can continue from a checkpoint or savepoint, as far as its manifest says: which operators have state in it, and how many
//! key groups.
//!
//! Whoever starts a flow stops at the first problem; whoever only asks ([`Savepoint::check`](crate::Savepoint::check)) hears of all. What the
//! states themselves are is the operators' to decide, as they open them.

use rivermark_checkpoint::Manifest;
use rivermark_operators::plan::{Node, NodeKind, Plan};
use std::collections::HashSet;

/// Why the flow cannot continue from what `found` names, and what to do.
pub(crate) fn problems(plan: &Plan, key_groups: u16, manifest: &Manifest, found: &str) -> Vec<String> {
    let groups = (manifest.key_groups != key_groups).then(|| {
        format!(
            "{found} has {} key groups, which are fixed for a flow's life, and the options say {key_groups}: open the engine with \
             `Options::key_groups({})`",
            manifest.key_groups, manifest.key_groups
        )
    });
    let names = plan.nodes().iter().map(|node| &*node.name).collect::<Vec<_>>().join("`, `");
    let gone = gone(plan, manifest).into_iter().map(|gone| {
        format!(
            "{found} holds state of `{gone}`, which the flow does not have (it has `{names}`); name the operator that continues it \
             with `.named(\"{gone}\")`, or give its state up with `flow.drop_operator(\"{gone}\")`, or raise the flow's version to begin anew"
        )
    });
    let sources = plan.sources().map(|(name, _)| &**name).collect::<Vec<_>>().join("`, `");
    let unread = unread(plan, manifest).into_iter().map(|gone| {
        format!(
            "{found} holds positions of source `{gone}`, which the flow does not have (its sources are `{sources}`); name the source that \
             continues it with `.named(\"{gone}\")`, or say that it is not read any more with `flow.drop_source(\"{gone}\")`, or raise \
             the flow's version to begin anew"
        )
    });
    groups.into_iter().chain(unread).chain(gone).chain(unnamed(plan, manifest, found)).collect()
}

/// The sources of the manifest that the flow neither has nor drops.
fn unread<'m>(plan: &Plan, manifest: &'m Manifest) -> Vec<&'m str> {
    absent(plan, manifest.sources.keys().filter(|name| !plan.drops_source(name)))
}

/// The operators and sinks of the manifest that the flow neither has nor drops.
fn gone<'m>(plan: &Plan, manifest: &'m Manifest) -> Vec<&'m str> {
    let operators = manifest.operators.keys().filter(|name| !plan.drops_operator(name));
    absent(plan, operators.chain(manifest.sinks.keys()))
}

/// The names that no node of the flow has.
fn absent<'m>(plan: &Plan, names: impl Iterator<Item = &'m String>) -> Vec<&'m str> {
    let known: HashSet<&str> = plan.nodes().iter().map(|node| &*node.name).collect();
    names.map(String::as_str).filter(|name| !known.contains(name)).collect()
}

/// Whether it is certain which state belongs to which operator. A name that the user has not given has a number, which is another one as
/// soon as an operator of the sort is added before it: an operator would then go on with the state of its neighbour.
fn unnamed(plan: &Plan, manifest: &Manifest, found: &str) -> Option<String> {
    let stateful = || plan.nodes().iter().filter(|node| node.kind == NodeKind::Stateful || node.tells_time);
    // Those that tell time keep their state beside the positions of sources.
    let is_stored = |node: &&Node| {
        manifest.operators.contains_key(&*node.name)
            || node.tells_time && manifest.watermarks.contains_key(&*node.name)
    };
    let unnamed = |node: &Node| node.unnamed();
    let continued: HashSet<_> = stateful().filter(is_stored).filter_map(unnamed).collect();
    let doubtful = stateful()
        .filter(|node| !is_stored(node))
        .find(|node| node.unnamed().is_some_and(|label| continued.contains(label)))?;
    let label = doubtful.unnamed().unwrap_or_default();
    Some(format!(
        "{found} does not know `{}`, and holds state of other operators that are called `{label}-` and a number, in the order of the flow: \
         which of them each belongs to is not certain. Give each a name with `.named(..)`: those that were there before the one that they \
         had, the new one another",
        doubtful.name
    ))
}
