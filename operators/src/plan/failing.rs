//! What the plan knows of operators whose function may fail; see [`dead_letters`](crate::dead_letters).

use super::{Graph, Node, NodeKind, Port, TaskBuilder};
use crate::dead_letters::OnError;
use crate::source::ErasedSource;
use std::collections::HashMap;
use std::sync::Arc;

impl Graph {
    /// Says what the node that `port` belongs to does when its function fails.
    pub(crate) fn set_on_error(&mut self, port: usize, on_error: OnError) {
        let node = self.port_nodes[port];
        self.nodes[node].on_error = on_error;
    }

    /// The nodes whose failures are to become dead letters, and nobody reads them yet.
    pub(crate) fn unread_failures(&self) -> Vec<usize> {
        let unread =
            |node: &Node| node.can_fail && node.on_error == OnError::DeadLetter && node.failures.is_none();
        self.nodes.iter().enumerate().filter(|(_, node)| unread(node)).map(|(index, _)| index).collect()
    }

    /// Adds the port that a node's failures come out of.
    pub(crate) fn add_failures_port(&mut self, node: usize) -> usize {
        let at = self.ports.len();
        self.ports.push(Port::default());
        self.port_nodes.push(node);
        let asked_before = self.nodes[node].failures.replace(at).is_some();
        if asked_before {
            let problem = "its dead letters are asked for twice: ask once, and clone the stream";
            self.nodes[node].problem.get_or_insert_with(|| problem.into());
        }
        at
    }

    /// Whether the records of a node may have come from other workers.
    pub(crate) fn is_behind_exchange(&self, node: usize) -> bool {
        self.is_or_is_behind(node, |node| matches!(node.kind, NodeKind::Exchange(_)))
    }

    /// Whether records come to a node's function, or out of what is before it, when time has passed, and not as they are read.
    pub(crate) fn lets_records_wait(&self, node: usize) -> bool {
        self.is_or_is_behind(node, |node| node.kind == NodeKind::Stateful && node.needs_event_time)
    }

    fn is_or_is_behind(&self, node: usize, is: impl Fn(&Node) -> bool) -> bool {
        let mut nodes = vec![node];
        while let Some(index) = nodes.pop() {
            if is(&self.nodes[index]) {
                return true;
            }
            nodes.extend(&self.nodes[index].upstream);
        }
        false
    }

    /// Whether a node can do what was chosen for its errors.
    pub(super) fn check_on_error(node: &Node) -> Result<(), String> {
        if node.on_error == OnError::Stop || (node.can_fail && node.failures.is_some()) {
            return Ok(());
        }
        Err(match node.can_fail {
            true => format!(
                "the dead letters of `{}` go nowhere: take them with `.dead_letters()` on its stream, or all of the flow's with \
                 `flow.dead_letters_to(sink)`",
                node.name
            ),
            false => format!(
                "`{}` has no dead letters, for its function returns no errors: only sources, `try_map`, `try_flat_map`, `process`, \
                 `process_with_broadcast` and `look_up` have them",
                node.name
            ),
        })
    }
}

impl TaskBuilder<'_> {
    /// What the node being built does when its function fails.
    pub(crate) fn on_error(&self) -> OnError {
        self.plan.nodes[self.node].on_error
    }

    /// Where its failures come out, if somebody reads them.
    pub(crate) fn failures_port(&self) -> Option<usize> {
        self.plan.nodes[self.node].failures
    }

    /// The flow's sources, by name, to read records of again.
    pub(crate) fn all_sources(&self) -> HashMap<Arc<str>, Arc<dyn ErasedSource>> {
        self.plan.sources().map(|(name, source)| (Arc::clone(name), Arc::clone(source))).collect()
    }
}
