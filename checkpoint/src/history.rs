//! How an epoch becomes *stored*, and how a generation is fenced: a write-once log of entries in an object store.
//!
//! The history of a flow is a row of objects, `history/0`, `history/1`, ... (in twenty digits). Each slot is decided
//! once, by put-if-absent, and the next one is only ever tried when all before it are decided. An [`Entry`] is
//! - a **fence**: a process claims the next generation;
//! - a **manifest**: an epoch is stored;
//! - a **rewind**: a generation continues from an older checkpoint than the newest, because somebody asked for it.
//!
//! Fencing ([`Fencing`]):
//! 1. list the slots, and read the newest entry for its generation;
//! 2. put a fence with the generation after it into the next slot;
//! 3. if that slot is taken meanwhile, go on to the one after it;
//! 4. list once more. If there is an entry behind the fence, the claim has failed: the first listing may be older than a
//!    slot that was taken *and deleted* since, and a fence in such a hole fences nobody. Whoever deletes an entry has a
//!    newer one behind it, so a hole always shows. (The exploration found this.) Where the entry behind is another
//!    process's fence, that one has won: of several that start at once, the last one does.
//!
//! Storing ([`Append`]): put the manifest into the slot after the newest one this generation knows. Created means
//! stored. Taken by the same bytes means that an earlier attempt's answer was lost: stored. Taken by anything else means
//! fenced.
//!
//! Why this is enough: an old process knows only of its own entries behind its own fence, so the one slot it can try is
//! the very slot where its successor's fence sits (or its own manifest, which the successor then read). Its put fails
//! there, *however late it lands*, and it learns that it is fenced by the answer that would have told it that it may
//! commit. There is no window between a check and a write, because the write is the check. For the same reason what a
//! generation reads below its own fence will not change, so reading after the fence needs no further care.
//!
//! This is the commit protocol of Delta Lake's log (Armbrust et al., VLDB 2020, section 3.2), with fences as entries.
//!
//! Deleting: manifests and rewinds may be deleted once a newer manifest exists. Whatever then lands late in such a slot
//! can only be a repetition of what was there, an expired checkpoint. **Fences are never deleted**: a slot that an old
//! process may still try must stay taken. They are some 200 bytes for each start of the flow.
//!
//! [`Fencing`] and [`Append`] are pure: they ask for a [`Call`] and are told its [`Reply`]. The exploration in
//! `tests/it/explore` interleaves them call by call.

mod entry;

use std::sync::Arc;

pub use entry::{Damage, Entry, FORMAT_VERSION};
pub(crate) use entry::{seal, unseal};

use crate::coordinator::StoreReply;
use crate::store::{Certainty, Put, Store, StoreError};
use crate::{Generation, Manifest};

/// Everything that holds entries begins so.
pub const PREFIX: &str = "history/";

/// The place of an entry.
pub type Slot = u64;

/// The name of a slot's object, below the flow's prefix.
#[must_use]
pub fn object(slot: Slot) -> String {
    format!("{PREFIX}{slot:020}")
}

/// The slot whose object has this name.
#[must_use]
pub fn parse(name: &str) -> Option<Slot> {
    let slot = name.strip_prefix(PREFIX)?.parse().ok()?;
    (object(slot) == name).then_some(slot)
}

/// What a procedure asks of the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Call {
    /// The slots that are taken.
    List,
    /// Put-if-absent.
    Put(Slot, Arc<[u8]>),
    /// Read an entry.
    Get(Slot),
}

/// What the store answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reply {
    /// To [`Call::List`], in order.
    Listed(Vec<Slot>),
    /// To [`Call::Put`].
    Put(Put),
    /// To [`Call::Get`].
    Got(Option<Vec<u8>>),
    /// To any of them.
    Failed(Certainty, String),
}

/// What a procedure does next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Next<T> {
    /// It needs the answer to this.
    Call(Call),
    /// It has come to an end.
    Done(T),
}

/// A generation claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fenced {
    /// The generation.
    pub generation: Generation,
    /// The slot of its fence.
    pub slot: Slot,
}

/// The procedure that claims the next generation. If it fails it can be started again at once, whatever the certainty:
/// a fence of its own that landed is found and either taken or superseded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fencing {
    owner: String,
    claimed_at_ms: i64,
    state: FencingState,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum FencingState {
    Listing,
    /// Looking for the newest generation, in these slots from the last one; entries that were damaged may each have
    /// been a fence.
    Looking {
        slots: Vec<Slot>,
        damaged: u64,
        next: Slot,
    },
    Putting(Fenced, Arc<[u8]>),
    /// The slot is taken: by whom?
    Comparing(Fenced, Arc<[u8]>),
    /// The fence is in its slot: is it the last entry?
    Verifying(Fenced),
}

impl Fencing {
    /// Claims the next generation for `owner`, which must be unique to this attempt (host, process, random number): it
    /// is how the attempt recognises its own fence. The time, in milliseconds since 1970, is for readers alone.
    #[must_use]
    pub fn new(owner: &str, claimed_at_ms: i64) -> (Self, Call) {
        (Self { owner: owner.to_owned(), claimed_at_ms, state: FencingState::Listing }, Call::List)
    }

    /// Goes on with the store's answer.
    pub fn step(&mut self, reply: Reply) -> Next<Result<Fenced, String>> {
        let state = std::mem::replace(&mut self.state, FencingState::Listing);
        match (state, reply) {
            (_, Reply::Failed(_, reason)) => Next::Done(Err(reason)),
            (FencingState::Verifying(fenced), Reply::Listed(slots)) if slots.last() == Some(&fenced.slot) => {
                Next::Done(Ok(fenced))
            }
            (FencingState::Verifying(fenced), Reply::Listed(_)) => {
                let name = object(fenced.slot);
                Next::Done(Err(format!(
                    "another process claimed it, or stored, while `{name}` was claimed: try again"
                )))
            }
            (FencingState::Listing, Reply::Listed(slots)) => {
                let next = slots.last().map_or(0, |newest| newest + 1);
                self.look(slots, 0, next)
            }
            (FencingState::Looking { mut slots, damaged, next }, Reply::Got(Some(bytes))) => {
                match Entry::decode(&bytes) {
                    Ok(entry) => self.put(Fenced { generation: entry.generation(), slot: next }, damaged),
                    Err(_) => {
                        slots.pop();
                        self.look(slots, damaged + 1, next)
                    }
                }
            }
            (FencingState::Putting(fenced, _), Reply::Put(Put::Created)) => self.verify(fenced),
            (FencingState::Putting(fenced, bytes), Reply::Put(Put::AlreadyExists)) => {
                self.state = FencingState::Comparing(fenced, bytes);
                Next::Call(Call::Get(fenced.slot))
            }
            (FencingState::Comparing(fenced, bytes), Reply::Got(Some(found))) => {
                if *found == *bytes {
                    return self.verify(fenced);
                }
                let newest = Entry::decode(&found).map_or(fenced.generation, |entry| entry.generation());
                self.put(Fenced { generation: newest, slot: fenced.slot + 1 }, 0)
            }
            // An entry was collected while we looked at it; there is a newer one then.
            _ => Next::Call(Call::List),
        }
    }

    fn look(&mut self, slots: Vec<Slot>, damaged: u64, next: Slot) -> Next<Result<Fenced, String>> {
        match slots.last() {
            Some(&newest) => {
                self.state = FencingState::Looking { slots, damaged, next };
                Next::Call(Call::Get(newest))
            }
            None => self.put(Fenced { generation: Generation(0), slot: next }, damaged),
        }
    }

    fn verify(&mut self, fenced: Fenced) -> Next<Result<Fenced, String>> {
        self.state = FencingState::Verifying(fenced);
        Next::Call(Call::List)
    }

    fn put(&mut self, newest: Fenced, damaged: u64) -> Next<Result<Fenced, String>> {
        let fenced = Fenced { generation: Generation(newest.generation.0 + damaged + 1), slot: newest.slot };
        let (owner, claimed_at_ms) = (self.owner.clone(), self.claimed_at_ms);
        let bytes: Arc<[u8]> =
            Entry::Fence { generation: fenced.generation, owner, claimed_at_ms }.encode().into();
        self.state = FencingState::Putting(fenced, Arc::clone(&bytes));
        Next::Call(Call::Put(fenced.slot, bytes))
    }
}

/// The procedure that stores an entry in the next slot of a generation. After [`StoreReply::Unknown`] it must be
/// repeated with the very same entry; after [`StoreReply::Refused`], the first time, the slot is still free.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Append {
    generation: Generation,
    slot: Slot,
    bytes: Arc<[u8]>,
    /// The slot was found taken, perhaps by an earlier attempt of ours.
    taken: bool,
}

impl Append {
    /// Stores `entry` in `slot`.
    #[must_use]
    pub fn new(entry: &Entry, slot: Slot) -> (Self, Call) {
        let bytes: Arc<[u8]> = entry.encode().into();
        let append = Self { generation: entry.generation(), slot, bytes: Arc::clone(&bytes), taken: false };
        (append, Call::Put(slot, bytes))
    }

    /// Goes on with the store's answer.
    pub fn step(&mut self, reply: Reply) -> Next<StoreReply> {
        match reply {
            Reply::Put(Put::Created) => Next::Done(StoreReply::Stored),
            Reply::Put(Put::AlreadyExists) => {
                self.taken = true;
                Next::Call(Call::Get(self.slot))
            }
            Reply::Got(Some(found)) if *found == *self.bytes => Next::Done(StoreReply::Stored),
            Reply::Got(Some(found)) => Next::Done(self.other(&found)),
            // Taken, and collected since: only a newer generation gets so far.
            Reply::Got(None) => Next::Done(StoreReply::Fenced { by: None }),
            Reply::Failed(Certainty::Determinate, reason) if !self.taken => {
                Next::Done(StoreReply::Refused { reason })
            }
            Reply::Failed(_, reason) => Next::Done(StoreReply::Unknown { reason }),
            Reply::Listed(_) => Next::Call(Call::Put(self.slot, Arc::clone(&self.bytes))),
        }
    }

    /// What it means that the slot holds something else.
    fn other(&self, found: &[u8]) -> StoreReply {
        let slot = object(self.slot);
        match Entry::decode(found) {
            Ok(entry) if entry.generation() > self.generation => {
                StoreReply::Fenced { by: Some(entry.generation()) }
            }
            // A put that the store had refused for certain has landed. Recovery sorts it out.
            Ok(_) => {
                StoreReply::Unknown { reason: format!("`{slot}` holds another entry of this generation") }
            }
            Err(damage) => {
                StoreReply::Unknown { reason: format!("`{slot}` is taken and unreadable: {damage}") }
            }
        }
    }
}

/// A flow's history in a store; performs the calls of the pure procedures.
#[derive(Debug, Clone)]
pub(crate) struct History {
    store: Arc<dyn Store>,
    /// The flow's prefix, with its slash.
    prefix: String,
}

impl History {
    pub(crate) fn new(store: Arc<dyn Store>, prefix: String) -> Self {
        Self { store, prefix }
    }

    pub(crate) fn name(&self, slot: Slot) -> String {
        format!("{}{}", self.prefix, object(slot))
    }

    pub(crate) fn fence(&self, owner: &str, claimed_at_ms: i64) -> Result<Fenced, String> {
        let (mut fencing, mut call) = Fencing::new(owner, claimed_at_ms);
        loop {
            match fencing.step(self.perform(call)) {
                Next::Call(next) => call = next,
                Next::Done(outcome) => return outcome,
            }
        }
    }

    pub(crate) fn append(&self, entry: &Entry, slot: Slot) -> StoreReply {
        let (mut append, mut call) = Append::new(entry, slot);
        loop {
            match append.step(self.perform(call)) {
                Next::Call(next) => call = next,
                Next::Done(outcome) => return outcome,
            }
        }
    }

    pub(crate) fn list(&self) -> Result<Vec<Slot>, StoreError> {
        let listed = self.store.list(&format!("{}{PREFIX}", self.prefix))?;
        let slot = |name: &str| parse(name.strip_prefix(&self.prefix)?);
        Ok(listed.iter().filter_map(|object| slot(&object.name)).collect())
    }

    pub(crate) fn get(&self, slot: Slot) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(&self.name(slot))
    }

    pub(crate) fn delete(&self, slot: Slot) -> Result<(), StoreError> {
        self.store.delete(&self.name(slot))
    }

    fn perform(&self, call: Call) -> Reply {
        let outcome = match call {
            Call::List => self.list().map(Reply::Listed),
            Call::Put(slot, bytes) => self.store.put(&self.name(slot), &bytes).map(Reply::Put),
            Call::Get(slot) => self.get(slot).map(Reply::Got),
        };
        outcome.unwrap_or_else(|error| Reply::Failed(error.certainty, error.to_string()))
    }
}

impl From<Manifest> for Entry {
    fn from(manifest: Manifest) -> Self {
        Self::Manifest(Box::new(manifest))
    }
}
