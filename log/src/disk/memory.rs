//! A simulated disk that knows what would survive a crash.
//!
//! Like redb's crash backend it holds two versions of everything: what is live, as the running process sees it, and what is durable, because
//! it was synced. [`MemoryDisk::after`] gives the disk as it would be found after a crash:
//!
//! 1. of a killed process, everything live survives;
//! 2. of a power cut, what was durable survives, of each file's unsynced bytes a seeded part (none, a prefix, or a prefix with torn bytes),
//!    and of each folder's unsynced changes a seeded prefix.
//!
//! To explore every crash of a history: run it once, count [`MemoryDisk::operations`], then run it for every `n` with
//! [`MemoryDisk::cut_power_before`]`(n)`, from which on everything fails, and reopen what survived.

use super::{Disk, DiskFile, DiskLock};
use crate::error::Holder;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// How the process or the machine goes down.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Crash {
    /// The process is killed; the operating system keeps what it wrote.
    Process,
    /// The power goes: only what was synced is certain. The seed decides what else survives; seed 0 keeps nothing else.
    Power(u64),
}

/// A kind of operation, for [`MemoryDisk::inject`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`DiskFile::read_at`].
    Read,
    /// [`DiskFile::write_at`].
    Write,
    /// [`DiskFile::truncate`].
    Truncate,
    /// [`DiskFile::sync`].
    Sync,
    /// [`Disk::create`] of a file that was not there, and [`Disk::create_dir_all`].
    Create,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::remove`] and [`Disk::remove_dir_all`].
    Remove,
    /// [`Disk::sync_dir`].
    SyncDir,
}

/// An error to come.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Of which operation.
    pub operation: Operation,
    /// On a path that contains this.
    pub path: String,
    /// After how many such operations that succeed.
    pub after: u64,
    /// With which error. A failing write writes the first half of its bytes.
    pub kind: io::ErrorKind,
}

/// A disk in memory; see the module's page. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

type Node = u64;
const ROOT: Node = 0;

#[derive(Debug)]
enum Content {
    Folder(Folder),
    File(Bytes),
}

#[derive(Debug, Default)]
struct Folder {
    live: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
    /// Changes since the folder was synced, in order: the name, and what it stood for afterwards. Those of one group are atomic.
    pending: Vec<Vec<(String, Option<Node>)>>,
}

#[derive(Debug, Default)]
struct Bytes {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Up to here, the two are the same.
    same: usize,
}

#[derive(Debug)]
struct State {
    nodes: HashMap<Node, Content>,
    next: Node,
    locks: HashSet<PathBuf>,
    capacity: Option<u64>,
    operations: u64,
    cut_before: Option<u64>,
    faults: Vec<Fault>,
}

impl Default for State {
    fn default() -> Self {
        let nodes = HashMap::from([(ROOT, Content::Folder(Folder::default()))]);
        State {
            nodes,
            next: 1,
            locks: HashSet::new(),
            capacity: None,
            operations: 0,
            cut_before: None,
            faults: Vec::new(),
        }
    }
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives all files together so many bytes, or no limit. A write beyond writes what fits and fails.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// Bytes that all files together take.
    pub fn used(&self) -> u64 {
        self.state.lock().used()
    }

    /// How many operations have changed the disk or made changes durable so far.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Lets every operation fail once so many have changed the disk.
    pub fn cut_power_before(&self, operation: u64) {
        self.state.lock().cut_before = Some(operation);
    }

    /// Lets an operation fail, once.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    /// A new disk with what would be found after such a crash now. This one stays as it is.
    pub fn after(&self, crash: Crash) -> MemoryDisk {
        let old = self.state.lock();
        let mut new = State { capacity: old.capacity, next: old.next, ..State::default() };
        let mut dice = match crash {
            Crash::Power(seed) if seed != 0 => Some(Dice(seed)),
            _ => None,
        };
        let mut reachable = vec![ROOT];
        while let Some(node) = reachable.pop() {
            let survived = match &old.nodes[&node] {
                Content::File(file) => Content::File(Bytes::durable(match crash {
                    Crash::Process => file.live.clone(),
                    Crash::Power(_) => file.survivor(dice.as_mut()),
                })),
                Content::Folder(folder) => {
                    let names = match crash {
                        Crash::Process => folder.live.clone(),
                        Crash::Power(_) => folder.survivor(dice.as_mut()),
                    };
                    reachable.extend(names.values());
                    Content::Folder(Folder { live: names.clone(), durable: names, pending: Vec::new() })
                }
            };
            new.nodes.insert(node, survived);
        }
        MemoryDisk { state: Arc::new(Mutex::new(new)) }
    }

    /// Changes the live and durable bytes of a file, as a failing medium does.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut state = self.state.lock();
        let node = state.find(path)?;
        let file = state.file(node)?;
        change(&mut file.live);
        *file = Bytes::durable(std::mem::take(&mut file.live));
        Ok(())
    }
}

impl Bytes {
    fn durable(bytes: Vec<u8>) -> Bytes {
        Bytes { same: bytes.len(), live: bytes.clone(), durable: bytes }
    }

    /// What a power cut leaves.
    fn survivor(&self, dice: Option<&mut Dice>) -> Vec<u8> {
        let Some(dice) = dice else { return self.durable.clone() };
        if self.same == self.live.len() && self.same == self.durable.len() {
            return self.live.clone();
        }
        let unsynced = &self.live[self.same..];
        match dice.below(4) {
            0 => self.durable.clone(),
            1 => self.live.clone(),
            kind => {
                let kept = dice.below(unsynced.len() + 1);
                let mut bytes = self.live[..self.same + kept].to_vec();
                if kind == 3 {
                    // Space was allocated whose bytes never arrived.
                    let torn = dice.below(kept + 1).min(64);
                    let from = bytes.len() - torn;
                    bytes[from..].fill(0);
                }
                bytes
            }
        }
    }
}

impl Folder {
    fn survivor(&self, dice: Option<&mut Dice>) -> BTreeMap<String, Node> {
        let mut names = self.durable.clone();
        let Some(dice) = dice else { return names };
        let kept = dice.below(self.pending.len() + 1);
        for (name, node) in self.pending[..kept].iter().flatten() {
            match node {
                Some(node) => names.insert(name.clone(), *node),
                None => names.remove(name),
            };
        }
        names
    }

    fn change(&mut self, changes: Vec<(String, Option<Node>)>) {
        for (name, node) in &changes {
            match node {
                Some(node) => self.live.insert(name.clone(), *node),
                None => self.live.remove(name),
            };
        }
        self.pending.push(changes);
    }
}

/// SplitMix64: seeded, small, good enough to choose crashes with.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

fn names_of(path: &Path) -> impl Iterator<Item = String> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    })
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} is not there", path.display()))
}

impl State {
    /// Counts an operation, and fails it if the power is off or a fault is due.
    fn begin(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        if self.cut_before.is_some_and(|n| self.operations >= n) {
            return Err(io::Error::other("the power is off"));
        }
        let name = path.to_string_lossy();
        let due = self.faults.iter_mut().position(|fault| {
            let hit = fault.operation == operation && name.contains(&fault.path);
            let due = hit && fault.after == 0;
            fault.after -= u64::from(hit && !due);
            due
        });
        if let Some(due) = due {
            return Err(io::Error::new(self.faults.remove(due).kind, "an injected fault"));
        }
        self.operations += u64::from(operation != Operation::Read);
        Ok(())
    }

    fn find(&self, path: &Path) -> io::Result<Node> {
        let mut node = ROOT;
        for name in names_of(path) {
            match &self.nodes[&node] {
                Content::Folder(folder) => node = *folder.live.get(&name).ok_or_else(|| not_found(path))?,
                Content::File(_) => return Err(not_found(path)),
            }
        }
        Ok(node)
    }

    fn folder(&mut self, node: Node) -> io::Result<&mut Folder> {
        match self.nodes.get_mut(&node) {
            Some(Content::Folder(folder)) => Ok(folder),
            _ => Err(io::Error::new(io::ErrorKind::NotADirectory, "not a folder")),
        }
    }

    fn file(&mut self, node: Node) -> io::Result<&mut Bytes> {
        match self.nodes.get_mut(&node) {
            Some(Content::File(file)) => Ok(file),
            _ => Err(io::Error::new(io::ErrorKind::IsADirectory, "not a file")),
        }
    }

    /// The folder that a path is in, and the last name of the path.
    fn parent(&self, path: &Path) -> io::Result<(Node, String)> {
        let name = names_of(path).last().ok_or_else(|| not_found(path))?;
        Ok((self.find(path.parent().ok_or_else(|| not_found(path))?)?, name))
    }

    fn add(&mut self, parent: Node, name: String, content: Content) -> io::Result<Node> {
        let node = self.next;
        self.next += 1;
        self.nodes.insert(node, content);
        self.folder(parent)?.change(vec![(name, Some(node))]);
        Ok(node)
    }

    fn used(&self) -> u64 {
        self.nodes
            .values()
            .map(|node| if let Content::File(file) = node { file.live.len() as u64 } else { 0 })
            .sum()
    }

    /// Unlinks; what is durable or open stays reachable by its number.
    fn unlink(&mut self, path: &Path) -> io::Result<()> {
        self.find(path)?;
        let (parent, name) = self.parent(path)?;
        self.folder(parent)?.change(vec![(name, None)]);
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let mut node = ROOT;
        for name in names_of(path) {
            node = match state.folder(node)?.live.get(&name) {
                Some(&child) => child,
                None => {
                    state.begin(Operation::Create, path)?;
                    state.add(node, name, Content::Folder(Folder::default()))?
                }
            };
        }
        state.folder(node).map(|_| ())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state.lock();
        let node = state.find(path)?;
        Ok(state.folder(node)?.live.keys().cloned().collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        let node = state.find(path)?;
        state.file(node)?;
        Ok(Arc::new(OpenFile { disk: self.clone(), node, path: path.to_path_buf() }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        let node = match state.find(path) {
            Ok(node) => node,
            Err(_) => {
                state.begin(Operation::Create, path)?;
                let (parent, name) = state.parent(path)?;
                state.add(parent, name, Content::File(Bytes::default()))?
            }
        };
        state.file(node)?;
        Ok(Arc::new(OpenFile { disk: self.clone(), node, path: path.to_path_buf() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin(Operation::Rename, to)?;
        let node = state.find(from)?;
        let ((from_parent, from_name), (to_parent, to_name)) = (state.parent(from)?, state.parent(to)?);
        if from_parent != to_parent {
            return Err(io::Error::new(io::ErrorKind::CrossesDevices, "renames stay within a folder"));
        }
        state.folder(to_parent)?.change(vec![(from_name, None), (to_name, Some(node))]);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin(Operation::Remove, path)?;
        let node = state.find(path)?;
        state.file(node)?;
        state.unlink(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin(Operation::Remove, path)?;
        let node = state.find(path)?;
        state.folder(node)?;
        state.unlink(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin(Operation::SyncDir, path)?;
        let node = state.find(path)?;
        let folder = state.folder(node)?;
        folder.durable = folder.live.clone();
        folder.pending.clear();
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Result<Box<dyn DiskLock>, Holder>> {
        self.create(path)?;
        if !self.state.lock().locks.insert(path.to_path_buf()) {
            return Ok(Err(Holder::Process(std::process::id())));
        }
        Ok(Ok(Box::new(MemoryLock { disk: self.clone(), path: path.to_path_buf() })))
    }
}

#[derive(Debug)]
struct OpenFile {
    disk: MemoryDisk,
    node: Node,
    path: PathBuf,
}

impl DiskFile for OpenFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut state = self.disk.state.lock();
        state.begin(Operation::Read, &self.path)?;
        let bytes = &state.file(self.node)?.live;
        let from = bytes.len().min(usize::try_from(position).unwrap_or(usize::MAX));
        let read = buffer.len().min(bytes.len() - from);
        buffer[..read].copy_from_slice(&bytes[from..from + read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let begun = state.begin(Operation::Write, &self.path);
        let room = state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used()));
        let file = state.file(self.node)?;
        let at = usize::try_from(position).unwrap_or(usize::MAX);
        let overwritten = file.live.len().saturating_sub(at).min(bytes.len());
        let room = overwritten.saturating_add(usize::try_from(room).unwrap_or(usize::MAX));
        let (written, result) = match begun {
            Err(error) if error.kind() == io::ErrorKind::Other => (0, Err(error)),
            Err(error) => (bytes.len() / 2, Err(error)),
            Ok(()) if room < bytes.len() => {
                (room, Err(io::Error::new(io::ErrorKind::StorageFull, "the simulated disk is full")))
            }
            Ok(()) => (bytes.len(), Ok(())),
        };
        if written > 0 {
            let end = at + written;
            if file.live.len() < end {
                file.live.resize(end, 0);
            }
            file.live[at..end].copy_from_slice(&bytes[..written]);
            file.same = file.same.min(at);
        }
        result
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state.lock().file(self.node)?.live.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.begin(Operation::Truncate, &self.path)?;
        let file = state.file(self.node)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        file.same = file.same.min(len).min(file.live.len());
        file.live.resize(len, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.begin(Operation::Sync, &self.path)?;
        let file = state.file(self.node)?;
        file.durable.truncate(file.same);
        file.durable.extend_from_slice(&file.live[file.same..]);
        file.same = file.live.len();
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryLock {
    disk: MemoryDisk,
    path: PathBuf,
}

impl DiskLock for MemoryLock {
    fn is_held(&self) -> bool {
        self.disk.open(&self.path).is_ok()
    }
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.disk.state.lock().locks.remove(&self.path);
    }
}
