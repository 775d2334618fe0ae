//! What a start would say of stored state, without a start.

use super::{NodeKind, OpenStore, Plan, Resources, TaskBuilder, TaskEnvironment};
use crate::batch::Batch;
use crate::error::Result;
use crate::partitions::Partitions;
use crate::source::Waker;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

impl Plan {
    /// Builds every operator with keyed state as a worker would, but alone: no source or sink is opened, and nothing downstream of it. Answers
    /// for each what its factory did, by name, in the order of the flow: its states were opened through `open_store`, or it has failed to.
    pub fn rehearse(&self, key_groups: u16, open_store: &mut OpenStore<'_>) -> Vec<(Arc<str>, Result<()>)> {
        let (metrics, times) = (HashMap::new(), BTreeMap::new());
        let stateful = |index: &usize| self.nodes[*index].kind == NodeKind::Stateful;
        let rehearse = |index: usize| {
            let mut open_store = |operator: &Arc<str>| open_store(operator);
            let mut builder = TaskBuilder::new(
                self,
                TaskEnvironment {
                    worker: 0,
                    workers: 1,
                    key_groups,
                    generation: 0,
                    partitions: Arc::new(Partitions::default()),
                    metrics: &metrics,
                    watermarks: &times,
                    ends: &times,
                    resources: Arc::new(Resources::default()),
                    held_batches: 1,
                    batch_capacity: Batch::<()>::CAPACITY,
                    waker: Waker::none(),
                    open_store: &mut open_store,
                },
            );
            (builder.node, builder.alone) = (index, true);
            (Arc::clone(&self.nodes[index].name), (self.nodes[index].build)(&mut builder))
        };
        (0..self.nodes.len()).filter(stateful).map(rehearse).collect()
    }
}
