//! Journals: what operators decided about the records of a source partition at the moment, written down so that a replay repeats it.
//!
//! A decision that is not in the log (what time it was when a record was read) is a function of nothing, so it has to be kept for as long
//! as the log itself. A journal is a sequence of bytes that grows at its end only. A checkpoint holds all of it, and costs what has changed:
//! 1. The bytes are cut into *chunks* at the multiples of 1 MiB, what is left at those of 64 KiB, and what is left then at those of 4 KiB. The
//!    rest is the *tail*. Where the cuts are follows from the length alone.
//! 2. A chunk is a file of the checkpoint store that never changes; its name is its place. The tail is written with the manifest.
//! 3. A chunk that a stored checkpoint has is only named. So a journal of n bytes is n / 1 MiB files and at most 30 more, every byte is
//!    uploaded three times at most, and its operator holds the last MiB.
//! 4. A version of the flow that begins anew is handed the journals of the one before it, and reads them chunk by chunk beside its source.

use crate::error::BoxError;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Sizes of chunks in bytes, the largest first. Each divides the one before.
const SIZES: [u64; 3] = [1 << 20, 64 << 10, 4 << 10];

/// The chunks of a journal of `len` bytes, in order; what they leave is the tail.
fn chunks_of(len: u64) -> Vec<Range<u64>> {
    let mut chunks = Vec::new();
    let mut from = 0;
    for size in SIZES {
        while from + size <= len {
            chunks.push(from..from + size);
            from += size;
        }
    }
    chunks
}

fn name_of(chunk: &Range<u64>) -> String {
    format!("{}-{}", chunk.start, chunk.end)
}

/// The other direction of [`name_of`].
fn named(name: &str) -> Option<Range<u64>> {
    let (start, end) = name.split_once('-')?;
    Some(start.parse().ok()?..end.parse().ok()?)
}

/// One chunk of a journal at a barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalChunk {
    /// Its name, which says where in the journal it is.
    pub name: String,
    /// Its content, unless a checkpoint that is stored has it.
    pub content: Option<Vec<u8>>,
}

/// A journal in a checkpoint, to be read.
#[derive(Clone)]
pub struct StoredJournal {
    chunks: Vec<String>,
    tail: Vec<u8>,
    fetch: Arc<Fetch>,
}

/// Fetches a chunk by its index.
type Fetch = dyn Fn(usize) -> Result<Vec<u8>, BoxError> + Send + Sync;

impl StoredJournal {
    /// A journal of these chunks, by name and in order, and this tail. `fetch` brings a chunk by its index, and may take as long as reading
    /// a file of its size does.
    pub fn new(
        chunks: Vec<String>,
        tail: Vec<u8>,
        fetch: impl Fn(usize) -> Result<Vec<u8>, BoxError> + Send + Sync + 'static,
    ) -> StoredJournal {
        StoredJournal { chunks, tail, fetch: Arc::new(fetch) }
    }

    /// The same, with everything in memory that a later checkpoint may have put together into larger chunks: for a journal that another job
    /// goes on writing. Chunks of the largest size stay where they are. Costs reading up to a MiB.
    ///
    /// # Errors
    /// Those of fetching.
    pub fn pin(mut self) -> Result<StoredJournal, BoxError> {
        let is_largest = |chunk: Range<u64>| chunk.end.checked_sub(chunk.start) == Some(SIZES[0]);
        let stays = self.chunks.iter().take_while(|name| named(name).is_some_and(is_largest)).count();
        let mut pinned = Vec::new();
        for index in stays..self.chunks.len() {
            pinned.extend((self.fetch)(index)?);
        }
        pinned.append(&mut self.tail);
        self.chunks.truncate(stays);
        self.tail = pinned;
        Ok(self)
    }

    /// The same as it goes into the next checkpoint, where nothing is added: chunks by name, without their bytes, and the tail.
    pub fn unchanged(&self) -> (Vec<JournalChunk>, Vec<u8>) {
        let chunks = self.chunks.iter().map(|name| JournalChunk { name: name.clone(), content: None });
        (chunks.collect(), self.tail.clone())
    }

    /// Reads it from its beginning.
    pub(crate) fn read(&self) -> JournalReader {
        JournalReader { journal: self.clone(), next: 0, bytes: Vec::new(), at: 0 }
    }

    /// How many bytes lie in its chunks.
    fn chunked(&self) -> Result<u64, BoxError> {
        let end = self.chunks.last().map_or(Some(0), |name| Some(named(name)?.end));
        let end = end.filter(|end| chunks_of(*end).iter().map(name_of).eq(self.chunks.iter().cloned()));
        end.ok_or_else(|| {
            format!("its chunks are `{}`, which leave something out", self.chunks.join("`, `")).into()
        })
    }
}

impl fmt::Debug for StoredJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredJournal")
            .field("chunks", &self.chunks.len())
            .field("tail", &self.tail.len())
            .finish()
    }
}

/// Reads a journal from its beginning, holding one chunk.
pub(crate) struct JournalReader {
    journal: StoredJournal,
    next: usize,
    bytes: Vec<u8>,
    at: usize,
}

/// The most bytes of a number: seven bits each.
const MOST_OF_NUMBER: usize = 10;

impl JournalReader {
    /// Sees to it that the next `most` bytes are here, if there are so many.
    fn fill(&mut self, most: usize) -> Result<(), BoxError> {
        while self.bytes.len() - self.at < most && self.next <= self.journal.chunks.len() {
            self.bytes.drain(..self.at);
            self.at = 0;
            if self.next < self.journal.chunks.len() {
                self.bytes.extend((self.journal.fetch)(self.next)?);
            } else {
                self.bytes.extend(&self.journal.tail);
            }
            self.next += 1;
        }
        Ok(())
    }

    /// The next bytes, as many as were written at once, or `None` at the end.
    pub(crate) fn bytes(&mut self) -> Result<Option<Vec<u8>>, BoxError> {
        let Some(length) = self.number()? else { return Ok(None) };
        let length = usize::try_from(length)?;
        self.fill(length)?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or("the journal ends within an entry")?;
        let bytes = self.bytes[self.at..end].to_vec();
        self.at = end;
        Ok(Some(bytes))
    }

    /// The next number, or `None` at the end.
    pub(crate) fn number(&mut self) -> Result<Option<u64>, BoxError> {
        self.fill(MOST_OF_NUMBER)?;
        let Some(rest) = self.bytes.get(self.at..).filter(|rest| !rest.is_empty()) else { return Ok(None) };
        let mut number = 0;
        for (place, byte) in rest.iter().take(MOST_OF_NUMBER).enumerate() {
            number |= u64::from(byte & 127) << (7 * place);
            if byte & 128 == 0 {
                self.at += place + 1;
                return Ok(Some(number));
            }
        }
        Err("the journal ends within a number".into())
    }
}

/// A journal that is written.
#[derive(Default)]
pub(crate) struct Journal {
    /// Where `recent` begins: at a cut of the largest size, and not behind what is stored.
    recent_from: u64,
    recent: Vec<u8>,
    /// How much of it a stored checkpoint has.
    stored: u64,
    /// How long it was at barriers whose checkpoint is not known to be stored, by epoch.
    taken: VecDeque<(u64, u64)>,
}

impl Journal {
    /// Goes on with what a checkpoint has.
    pub(crate) fn restore(stored: &StoredJournal) -> Result<Journal, BoxError> {
        let chunked = stored.chunked()?;
        let recent_from = chunked - chunked % SIZES[0];
        let mut recent = Vec::new();
        for index in (recent_from / SIZES[0]) as usize..stored.chunks.len() {
            recent.extend((stored.fetch)(index)?);
        }
        recent.extend(&stored.tail);
        let len = recent_from + recent.len() as u64;
        Ok(Journal { recent_from, recent, stored: len, taken: VecDeque::new() })
    }

    /// Writes a number.
    pub(crate) fn push(&mut self, mut number: u64) {
        while number >= 128 {
            self.recent.push(number as u8 | 128);
            number >>= 7;
        }
        self.recent.push(number as u8);
    }

    /// Writes bytes, and how many they are.
    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) {
        self.push(bytes.len() as u64);
        self.recent.extend_from_slice(bytes);
    }

    fn len(&self) -> u64 {
        self.recent_from + self.recent.len() as u64
    }

    /// What the checkpoint of `epoch` holds of it: its chunks and its tail. `stored` is the newest epoch known to be stored.
    pub(crate) fn at_barrier(&mut self, epoch: u64, stored: u64) -> (Vec<JournalChunk>, Vec<u8>) {
        while let Some((_, len)) = self.taken.pop_front_if(|(epoch, _)| *epoch <= stored) {
            self.stored = len;
        }
        self.forget();
        self.taken.push_back((epoch, self.len()));
        let (chunks, before) = (chunks_of(self.len()), chunks_of(self.stored));
        let chunked = chunks.last().map_or(0, |chunk| chunk.end);
        let content = |chunk: &Range<u64>| {
            let is_new =
                before.binary_search_by_key(&(chunk.start, chunk.end), |b| (b.start, b.end)).is_err();
            is_new.then(|| self.bytes(chunk.clone()).to_vec())
        };
        let tail = self.bytes(chunked..self.len()).to_vec();
        let chunks =
            chunks.iter().map(|chunk| JournalChunk { name: name_of(chunk), content: content(chunk) });
        (chunks.collect(), tail)
    }

    /// Lets go of the chunks of the largest size that are stored: nothing will be made of them any more.
    fn forget(&mut self) {
        let from = self.stored - self.stored % SIZES[0];
        self.recent.drain(..(from - self.recent_from) as usize);
        self.recent_from = from;
    }

    fn bytes(&self, range: Range<u64>) -> &[u8] {
        &self.recent[(range.start - self.recent_from) as usize..(range.end - self.recent_from) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// A checkpoint store's view of a journal.
    #[derive(Default)]
    struct Files(HashMap<String, Vec<u8>>, u64);

    impl Files {
        fn store(&mut self, chunks: Vec<JournalChunk>, tail: Vec<u8>) -> StoredJournal {
            let names: Vec<String> = chunks.iter().map(|chunk| chunk.name.clone()).collect();
            for chunk in chunks {
                if let Some(content) = chunk.content {
                    self.1 += content.len() as u64;
                    self.0.insert(chunk.name, content);
                }
            }
            // Files that this checkpoint does not name are collected.
            self.0.retain(|name, _| names.contains(name));
            let files: Vec<Vec<u8>> = names.iter().map(|name| self.0[name].clone()).collect();
            StoredJournal::new(names, tail, move |index| Ok(files[index].clone()))
        }
    }

    fn numbers(journal: &StoredJournal) -> Vec<u64> {
        let mut reader = journal.read();
        std::iter::from_fn(|| reader.number().unwrap()).collect()
    }

    #[test]
    fn what_was_written_is_read_back_across_checkpoints_lost_epochs_and_restarts() {
        let (mut journal, mut files) = (Journal::default(), Files::default());
        let mut written = Vec::new();
        let (mut stored_epoch, mut kept) = (0, None);
        let mut random = 7_u64;
        for epoch in 1..=400 {
            for _ in 0..2000 {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let number = random >> (random % 64);
                journal.push(number);
                written.push(number);
            }
            let (chunks, tail) = journal.at_barrier(epoch, stored_epoch);
            // One in three checkpoints is given up.
            if epoch % 3 > 0 {
                kept = Some((files.store(chunks, tail), written.len()));
                stored_epoch = epoch;
            }
            let (stored, count) = kept.as_ref().unwrap();
            if epoch % 97 == 0 {
                assert_eq!(numbers(stored), written[..*count], "epoch {epoch}");
                let pinned = stored.clone().pin().unwrap();
                assert!(pinned.tail.len() as u64 <= SIZES[0]);
                assert_eq!(numbers(&pinned), written[..*count], "epoch {epoch}");
                journal = Journal::restore(stored).unwrap();
                written.truncate(*count);
            }
        }
        let len = journal.len();
        assert!(len > 3 * SIZES[0], "only {len} bytes");
        assert!(files.1 < 3 * len, "{} bytes uploaded for a journal of {len}", files.1);
        assert!(journal.recent.len() as u64 <= 2 * SIZES[0]);
        assert!(files.0.len() as u64 <= len / SIZES[0] + 30);
    }

    #[test]
    fn a_journal_without_one_of_its_chunks_is_refused() {
        let stored = StoredJournal::new(vec!["0-65536".into(), "69632-73728".into()], vec![], |_| Ok(vec![]));
        let error = Journal::restore(&stored).err().unwrap().to_string();
        assert!(error.contains("leave something out"), "{error}");
        assert!(numbers(&StoredJournal::new(vec![], vec![], |_| Ok(vec![]))).is_empty());
        let cut_off = StoredJournal::new(vec![], vec![5, 200], |_| Ok(vec![]));
        let mut reader = cut_off.read();
        assert_eq!(reader.number().unwrap(), Some(5));
        assert!(reader.number().is_err());
    }
}
