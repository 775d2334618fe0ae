//! A backend on RocksDB, for state beyond memory.
//!
//! 1. The write-ahead log is off: nothing here survives a crash, nor has to. Snapshots do, and the source's log is the log.
//! 2. All databases of an engine share one block cache and one write-buffer allowance inside it, so that their memory is one number,
//!    charged to the budget from the start.
//! 3. A checkpoint flushes, then hard-links the SST files into a folder of its own, which lives until the last snapshot that
//!    refers to it is dropped. SST files keep their names, so that only new ones need to be stored.
//! 4. Opening hard-links the SST files of a checkpoint and copies its manifest, which RocksDB goes on writing to.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::compaction_filter::{CompactionFilter, Decision};
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DB, DBCompressionType, FlushOptions,
    IngestExternalFileOptions, LogLevel, LruCacheOptions, Options, ReadOptions, SstFileWriter, WriteBatch,
    WriteBufferManager, WriteOptions,
};

use super::{Backend, Backends, BaseFile, Batch, Frozen, Visit};
use crate::budget::{Account, MemoryBudget};
use crate::error::{Result, StateError};
use crate::expire::{Expired, Expiry};
use crate::snapshot::{HeldFile, RestoreFile, RestoreSource, SnapshotSource};

/// Where the live databases and checkpoints are, below the root. Emptied when an engine starts.
const FOLDER: &str = "live-state";

/// A sorted batch of this many bytes is worth a table file of its own.
const INGEST: usize = 4 << 20;

/// How much the databases of an engine take together.
#[derive(Clone, Copy, Debug)]
pub struct RocksOptions {
    /// The shared block cache, filters, indexes and write buffers included, in bytes.
    pub cache: usize,
    /// How much of it all write buffers together may take, in bytes.
    pub write_buffers: usize,
    /// Threads that flush and compact, for all databases.
    pub background_jobs: i32,
}

impl RocksOptions {
    /// A fifth of the budget, between 8 MiB and 512 MiB, half of that for write buffers.
    pub fn for_budget(budget: &MemoryBudget) -> Self {
        let cache = (budget.limit() / 5).clamp(8 << 20, 512 << 20);
        Self { cache, write_buffers: cache / 2, background_jobs: 2 }
    }
}

/// Makes [`RocksBackend`]s below one folder.
pub struct RocksBackends {
    folder: PathBuf,
    options: Options,
    next: AtomicU64,
    /// Holds the cache's charge; nothing reads it.
    _account: Mutex<Account>,
}

impl RocksBackends {
    /// Databases below `root`, which belongs to this engine alone: what an earlier process left there is removed.
    ///
    /// # Errors
    /// When the folder cannot be emptied or created.
    pub fn new(root: impl AsRef<Path>, budget: &MemoryBudget, options: RocksOptions) -> Result<Self> {
        let folder = root.as_ref().join(FOLDER);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("empty", &folder)(error));
            }
            _ => {}
        }
        fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
        let mut account = Account::new(budget.clone());
        account.charge(options.cache);
        Ok(Self { folder, options: tuned(options), next: AtomicU64::new(0), _account: Mutex::new(account) })
    }

    /// A folder that no other backend of this process has.
    fn fresh_folder(&self, name: &str) -> Result<Folder> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let name: String = name.chars().map(safe).take(80).collect();
        let path = self.folder.join(format!("{number}-{name}"));
        fs::create_dir(&path).map_err(io_error("create", &path))?;
        Ok(Folder(path))
    }

    fn start(&self, folder: Folder, listed: HashSet<String>) -> Result<Box<dyn Backend>> {
        let database = folder.0.join("db");
        let expiry = Arc::new(Expiry::default());
        let mut options = self.options.clone();
        options.set_compaction_filter_factory(Compactions(Arc::clone(&expiry)));
        let db = DB::open(&options, &database).map_err(|error| backend_error("open", &database, &error))?;
        let mut write = WriteOptions::default();
        write.disable_wal(true);
        Ok(Box::new(RocksBackend { db, options, write, expiry, listed, folder: Arc::new(folder) }))
    }
}

/// The options of every database; the cache and the write-buffer allowance inside are shared by their clones.
fn tuned(limits: RocksOptions) -> Options {
    let mut cache = LruCacheOptions::default();
    cache.set_capacity(limits.cache);
    // Few shards: a shard of a small cache must still hold whole blocks of every kind.
    cache.set_num_shard_bits(2);
    let cache = Cache::new_lru_cache_opts(&cache);
    let buffers =
        WriteBufferManager::new_write_buffer_manager_with_cache(limits.write_buffers, false, cache.clone());
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&cache);
    table.set_block_size(8 << 10);
    table.set_bloom_filter(10.0, false);
    // Filters and indexes in pieces that come and go as data does: a whole filter of megabytes would be read anew for every
    // row when the cache is small (measured: 100 us a record instead of 10).
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_metadata_block_size(4 << 10);
    table.set_pin_top_level_index_and_filter(true);
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_manager(&buffers);
    options.set_write_buffer_size((limits.write_buffers / 2).clamp(1 << 20, 64 << 20));
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_max_background_jobs(limits.background_jobs);
    options.set_max_open_files(1024);
    options.set_memtable_whole_key_filtering(true);
    options.set_memtable_prefix_bloom_ratio(0.02);
    options.set_log_level(LogLevel::Error);
    options.set_keep_log_file_num(1);
    options.set_stats_dump_period_sec(0);
    options
}

impl Backends for RocksBackends {
    fn create(&self, name: &str) -> Result<Box<dyn Backend>> {
        self.start(self.fresh_folder(name)?, HashSet::new())
    }

    fn open(&self, name: &str, files: &[RestoreFile]) -> Result<Box<dyn Backend>> {
        let folder = self.fresh_folder(name)?;
        let database = folder.0.join("db");
        fs::create_dir(&database).map_err(io_error("create", &database))?;
        for file in files {
            place(file, &database)?;
        }
        self.start(folder, files.iter().map(|file| file.name.clone()).collect())
    }

    fn open_frozen(&self, name: &str, files: &[RestoreFile]) -> Result<Arc<dyn Frozen>> {
        let folder = self.fresh_folder(name)?;
        let database = folder.0.join("db");
        fs::create_dir(&database).map_err(io_error("create", &database))?;
        for file in files {
            place(file, &database)?;
        }
        // No compaction, and no lock that would tell of writers: what is there stays.
        let db = DB::open_for_read_only(&self.options, &database, false)
            .map_err(|error| backend_error("open for reading", &database, &error))?;
        Ok(Arc::new(FrozenRocks { db, folder }))
    }
}

/// A checkpoint that is read. The folder goes when the database is closed.
struct FrozenRocks {
    db: DB,
    folder: Folder,
}

impl Frozen for FrozenRocks {
    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        get(&self.db, key, value).map_err(|error| backend_error("read a row", &self.folder.0, &error))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        scan(&self.db, &self.folder.0, from, to, visit)
    }
}

fn get(db: &DB, key: &[u8], value: &mut Vec<u8>) -> Result<bool, rocksdb::Error> {
    value.clear();
    let Some(found) = db.get_pinned(key)? else { return Ok(false) };
    value.extend_from_slice(&found);
    Ok(true)
}

fn scan(db: &DB, folder: &Path, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
    let mut options = ReadOptions::default();
    options.set_iterate_upper_bound(to);
    options.fill_cache(false);
    let mut rows = db.raw_iterator_opt(options);
    rows.seek(from);
    while let Some((key, value)) = rows.item() {
        if visit(key, value)?.is_break() {
            return Ok(());
        }
        rows.next();
    }
    rows.status().map_err(|error| backend_error("scan", folder, &error))
}

/// Links or copies a file of a checkpoint into the folder of a database.
fn place(file: &RestoreFile, database: &Path) -> Result<()> {
    let name = file.name.rsplit('/').next().unwrap_or(&file.name);
    let target = database.join(name);
    match &file.source {
        RestoreSource::Bytes(bytes) => fs::write(&target, &**bytes).map_err(io_error("write", &target)),
        // An SST file is never written to, so a link will do; across file systems it takes a copy.
        RestoreSource::Path(path) if is_table(name) && fs::hard_link(path, &target).is_ok() => Ok(()),
        RestoreSource::Path(path) => fs::copy(path, &target).map(|_| ()).map_err(io_error("copy", path)),
    }
}

fn is_table(name: &str) -> bool {
    name.ends_with(".sst")
}

/// A folder that is removed when nobody refers to it any more.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "cannot remove a folder of local state");
        }
    }
}

/// One RocksDB database.
pub struct RocksBackend {
    db: DB,
    options: Options,
    write: WriteOptions,
    expiry: Arc<Expiry>,
    /// The files that some checkpoint has listed, or that it was opened from.
    listed: HashSet<String>,
    folder: Arc<Folder>,
}

impl RocksBackend {
    fn error(&self, attempted: &'static str, error: &rocksdb::Error) -> StateError {
        backend_error(attempted, &self.folder.0, error)
    }
}

impl Backend for RocksBackend {
    fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        get(&self.db, key, value).map_err(|error| self.error("read a row", &error))
    }

    fn apply(&mut self, batch: &Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        if batch.bytes() >= INGEST && batch.ranges().next().is_none() {
            return self.ingest(batch);
        }
        let mut writes = WriteBatch::with_capacity_bytes(batch.bytes() + 16 * batch.len());
        for (from, to) in batch.ranges() {
            writes.delete_range(from, to);
        }
        for (key, value) in batch.ops() {
            match value {
                Some(value) => writes.put(key, value),
                None => writes.delete(key),
            }
        }
        self.db.write_opt(writes, &self.write).map_err(|error| self.error("write a batch", &error))
    }

    fn scan(&mut self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        scan(&self.db, &self.folder.0, from, to, visit)
    }

    fn checkpoint(&mut self, epoch: u64) -> Result<Vec<BaseFile>> {
        let mut flush = FlushOptions::default();
        flush.set_wait(true);
        self.db.flush_opt(&flush).map_err(|error| self.error("flush", &error))?;
        let folder = Folder(self.folder.0.with_extension(format!("checkpoint-{epoch}")));
        if folder.0.exists() {
            fs::remove_dir_all(&folder.0).map_err(io_error("replace", &folder.0))?;
        }
        Checkpoint::new(&self.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(&folder.0))
            .map_err(|error| self.error("take a checkpoint", &error))?;
        let files = self.list(epoch, folder)?;
        self.listed = files.iter().map(|file| file.name.clone()).collect();
        Ok(files)
    }

    fn checkpoint_is_incremental(&self) -> bool {
        true
    }

    fn expiry(&self) -> Option<Arc<Expiry>> {
        Some(Arc::clone(&self.expiry))
    }

    fn bytes(&self) -> u64 {
        let property = |name| self.db.property_int_value(name).ok().flatten().unwrap_or(0);
        property("rocksdb.total-sst-files-size") + property("rocksdb.cur-size-all-mem-tables")
    }
}

/// Makes a filter of what has expired for each compaction.
struct Compactions(Arc<Expiry>);

impl CompactionFilterFactory for Compactions {
    type Filter = WithoutExpired;

    fn create(&mut self, _: CompactionFilterContext) -> WithoutExpired {
        WithoutExpired(self.0.now())
    }

    fn name(&self) -> &CStr {
        c"rivermark.expiry"
    }
}

/// Removes what had expired when a compaction began.
struct WithoutExpired(Expired);

impl CompactionFilter for WithoutExpired {
    fn filter(&mut self, _level: u32, key: &[u8], value: &[u8]) -> Decision {
        // A deletion rather than nothing: an older version of the row, on a level below, may have a later deadline.
        if self.0.includes(key, value) { Decision::Remove } else { Decision::Keep }
    }

    fn name(&self) -> &CStr {
        c"rivermark.expired"
    }
}

impl RocksBackend {
    /// Writes a sorted batch as an SST file of its own: no memtable, no flush, no rewriting before the first compaction.
    fn ingest(&mut self, batch: &Batch) -> Result<()> {
        let path = self.folder.0.join("ingest.sst");
        let mut writer = SstFileWriter::create(&self.options);
        let written = writer.open(&path).and_then(|()| {
            for (key, value) in batch.ops() {
                match value {
                    Some(value) => writer.put(key, value)?,
                    None => writer.delete(key)?,
                }
            }
            writer.finish()
        });
        written.map_err(|error| self.error("write a table file", &error))?;
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        self.db
            .ingest_external_file_opts(&options, vec![&path])
            .map_err(|error| self.error("ingest a table file", &error))
    }

    /// The files of a checkpoint that opening needs; none if it has no row.
    fn list(&self, epoch: u64, folder: Folder) -> Result<Vec<BaseFile>> {
        let folder = Arc::new(folder);
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder.0).map_err(io_error("list", &folder.0))? {
            let path = entry.map_err(io_error("list", &folder.0))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let name = if is_table(name) {
                format!("sst/{name}")
            } else if name == "CURRENT" || name.starts_with("MANIFEST-") {
                format!("{epoch}/{name}")
            } else {
                continue;
            };
            let reused = is_table(&name) && self.listed.contains(&name);
            let source = SnapshotSource::Path(HeldFile::new(path, folder.clone()));
            files.push(BaseFile { name, source, reused });
        }
        if !files.iter().any(|file| is_table(&file.name)) {
            return Ok(Vec::new());
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }
}

fn io_error(attempted: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError + use<> {
    let path = path.to_owned();
    move |source| StateError::Io { attempted, path, source }
}

fn backend_error(attempted: &'static str, place: &Path, error: &rocksdb::Error) -> StateError {
    StateError::Backend { attempted, place: place.display().to_string(), reason: error.to_string() }
}
