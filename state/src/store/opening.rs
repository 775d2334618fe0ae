//! How a store's tables are opened: their schemas are checked, and rows of older versions become those of the present one.

use std::any::TypeId;
use std::marker::PhantomData;
use std::sync::Arc;

use super::{KeyedStore, TableId};
use crate::backend::{Batch, successor};
use crate::budget::Account;
use crate::delta::Op;
use crate::error::{Result, StateError};
use crate::handle::StateKind;
use crate::migrate::{Each, Migrations, Path};
use crate::schema::{schema, schema_of};
use crate::scope::Scope;
use crate::snapshot::TableMeta;
use crate::table::ErasedTable;

/// Which tables of handles may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MayOpen {
    /// Any: it is the start.
    Any,
    /// Those of version 1, whenever they are used first.
    First,
    /// No more.
    None,
}

/// A table as the program asks for it.
pub struct Asked<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: StateKind,
    pub(crate) version: u32,
    /// The types of its keys.
    pub(crate) keys: Vec<String>,
    /// The type of its values.
    pub(crate) value: String,
    pub(crate) width: usize,
}

impl Asked<'_> {
    pub(crate) fn schema(&self) -> String {
        let types: Vec<String> = self.keys.iter().cloned().chain([self.value.clone()]).collect();
        schema(&types)
    }

    /// Whether rows of that schema have the same keys.
    fn has_keys_of(&self, found: &TableMeta) -> bool {
        found.kind == self.kind && found.schema.starts_with(&format!("{} -> ", schema(&self.keys)))
    }

    /// Whether `found` can be opened as this, by a migration if it is of an older version.
    pub(crate) fn check(&self, operator: &Arc<str>, found: &TableMeta) -> Result<()> {
        let fits = match found.schema_version == self.version {
            true => found.kind == self.kind && found.schema == self.schema(),
            false if found.schema_version > self.version => {
                let problem = "start a program that has this version, or a later one";
                return Err(self.version_error(operator, found.schema_version, problem.to_owned()));
            }
            false => self.has_keys_of(found),
        };
        if fits {
            return Ok(());
        }
        Err(StateError::Schema {
            operator: operator.clone(),
            state: self.name.into(),
            kind: self.kind,
            schema: self.schema(),
            found_kind: found.kind,
            found_schema: found.schema.clone(),
        })
    }

    /// The steps that lead from version `found` to this one, which holds `V`s.
    pub(crate) fn path<'m, V: 'static>(
        &self,
        operator: &Arc<str>,
        migrations: &'m [(&'static str, Migrations)],
        found: u32,
    ) -> Result<Path<'m>> {
        static NONE: Migrations = Migrations::none();
        let of_name = migrations.iter().find(|(name, _)| *name == self.name);
        let migrations = of_name.map_or(&NONE, |(_, migrations)| migrations);
        let each = if self.kind == StateKind::List { Each::Element } else { Each::Value };
        let path = migrations.path::<V>(found, self.version, each);
        path.map_err(|problem| self.version_error(operator, found, problem))
    }

    fn version_error(&self, operator: &Arc<str>, found: u32, problem: String) -> StateError {
        StateError::Version {
            operator: operator.clone(),
            state: self.name.into(),
            version: self.version,
            found,
            problem,
        }
    }

    /// The directory entry of a table that is new.
    pub(crate) fn new_table(&self, id: u16) -> TableMeta {
        TableMeta {
            id,
            name: self.name.to_owned(),
            kind: self.kind,
            schema: self.schema(),
            schema_version: self.version,
            namespace_width: self.width as u16,
            counter: 0,
        }
    }
}

/// A table as a handle asks for it.
pub(crate) fn of_handle<V>(name: &str, kind: StateKind, version: u32, keys: Vec<String>) -> Asked<'_> {
    Asked { name, kind, version, keys, value: schema_of::<V>(), width: 0 }
}

impl KeyedStore {
    pub(super) fn open_table<T: ErasedTable, V: 'static>(
        &mut self,
        asked: Asked<'_>,
        open: impl FnOnce(Scope, u64) -> Result<T>,
    ) -> Result<TableId<T>> {
        let meta = self.admit::<V>(&asked)?;
        let existing = self.tables.iter().position(|table| table.scope().id == meta.id);
        if let Some(index) = existing {
            return Ok(TableId { index: index as u16, table: PhantomData });
        }
        let schema = asked.schema();
        let scope = Scope {
            id: meta.id,
            operator: self.operator.clone(),
            state: meta.name.as_str().into(),
            schema: schema.clone(),
            groups: self.spec.groups,
            range: self.spec.range,
            evict_batch: self.spec.limits.evict_batch,
            account: Account::new(self.spec.budget.clone()),
            cold: self.cold.clone(),
        };
        let table = if meta.schema_version == asked.version {
            let mut table = open(scope, meta.counter)?;
            self.restored.replay(&meta, &mut |op| table.restore(op))?;
            table
        } else {
            let table = self.migrate_table::<T, V>(&asked, &meta, scope, open)?;
            let known = self.known.iter_mut().find(|known| known.id == meta.id);
            let known = known.expect("it was declared above");
            (known.schema, known.schema_version) = (schema, asked.version);
            self.force_rebase();
            table
        };
        let mut table: Box<dyn ErasedTable> = Box::new(table);
        if self.undoable {
            table.keep_changes();
        }
        self.tables.push(table);
        self.types.push(TypeId::of::<T>());
        Ok(TableId { index: (self.tables.len() - 1) as u16, table: PhantomData })
    }

    /// Opens a table whose stored rows are of an older version, and makes them all of the present one.
    fn migrate_table<T: ErasedTable, V: 'static>(
        &mut self,
        asked: &Asked<'_>,
        meta: &TableMeta,
        scope: Scope,
        open: impl FnOnce(Scope, u64) -> Result<T>,
    ) -> Result<T> {
        let path = asked.path::<V>(&self.operator, &self.migrations, meta.schema_version)?;
        let (operator, state, schema) = (scope.operator.clone(), scope.state.clone(), meta.schema.clone());
        let failed = move |source| StateError::Codec {
            operator: operator.clone(),
            state: state.clone(),
            schema: schema.clone(),
            source,
        };
        path.rewrite(&mut *self.cold.lock().backend, meta.id, &failed)?;
        let mut table = open(scope, meta.counter)?;
        self.restored.replay(meta, &mut |op| match op {
            Op::Put { row, value } => {
                let value = path.apply(value).map_err(&failed)?;
                table.restore(Op::Put { row, value: &value })
            }
            Op::Delete { .. } | Op::Drop { .. } => table.restore(op),
        })?;
        Ok(table)
    }

    /// The directory entry of a table, new if the name is.
    pub(super) fn declare(&mut self, asked: &Asked<'_>) -> Result<TableMeta> {
        let found = self.known.iter().find(|known| known.is_called(asked.name, asked.kind));
        let is_open = found.is_some_and(|known| self.tables.iter().any(|table| table.scope().id == known.id));
        if !is_open && asked.kind.has_handle() && !self.may_open(asked.version) {
            return Err(StateError::Undeclared { operator: self.operator.clone(), state: asked.name.into() });
        }
        let Some(known) = found else {
            let id = self.known.iter().map(|known| known.id + 1).max().unwrap_or(0);
            self.known.push(asked.new_table(id));
            return Ok(asked.new_table(id));
        };
        if is_open && known.schema_version != asked.version {
            let problem = "a program has one version of a state: use one constant".to_owned();
            return Err(asked.version_error(&self.operator, known.schema_version, problem));
        }
        asked.check(&self.operator, known)?;
        Ok(known.clone())
    }

    fn may_open(&self, version: u32) -> bool {
        match self.may_open {
            MayOpen::Any => true,
            MayOpen::First => version == 1,
            MayOpen::None => false,
        }
    }

    /// Says how older versions of the state `name` become the present one. Call it before its table is opened.
    pub fn migrate(&mut self, name: &'static str, migrations: Migrations) {
        self.migrations.push((name, migrations));
    }

    /// Removes a state that the program does not have any more, all of its rows included; one that is not stored is no error.
    ///
    /// # Errors
    /// When the program has opened its table, or rows cannot be removed.
    pub fn drop_state(&mut self, name: &str) -> Result<()> {
        let Some(at) = self.known.iter().position(|known| known.is_called(name, StateKind::Value)) else {
            return Ok(());
        };
        let id = self.known[at].id;
        if self.tables.iter().any(|table| table.scope().id == id) {
            return self.refuse(StateError::Mismatch {
                operator: self.operator.clone(),
                reason: format!("state {name} is to be dropped, and the program declares it"),
            });
        }
        let table = self.known.remove(at);
        self.note_dropped(&table);
        self.restored.forget(id);
        let mut batch = Batch::default();
        let from = id.to_be_bytes();
        batch.delete_range(&from, &successor(&from).unwrap_or_else(|| vec![u8::MAX; 3]));
        self.cold.lock().backend.apply(&batch)?;
        self.force_rebase();
        Ok(())
    }

    /// Ends the start: all states of handles are opened, and no other will be.
    ///
    /// # Errors
    /// When states were restored that have been neither opened nor dropped; the error names them.
    pub fn seal(&mut self) -> Result<()> {
        self.may_open = MayOpen::None;
        let gone: Vec<String> =
            self.unopened().map(|known| format!("{} {}", known.kind, known.name)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let gone = StateError::Gone { operator: self.operator.clone(), states: gone.join(", ") };
        if self.note_unopened(Some(&gone)) { Ok(()) } else { Err(gone) }
    }

    /// Ends the start of a program that does not say which states it has: they are opened when they are used first, if they are of version 1.
    pub fn open_on_first_use(&mut self) {
        self.may_open = MayOpen::First;
        self.note_unopened(None);
    }
}
