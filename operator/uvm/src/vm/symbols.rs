//! Symbols and compiled code, shared by all turns of the process.
//!
//! A table only grows, so that a symbol keeps its meaning; one that has grown too large is left to the turns that hold it
//! and the next turn begins a new one.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, RwLock},
};

use batos_graph::Block;

use super::{compile::compile_block, op::Code, value::Symbol};

/// Symbols of a table before the next turn begins a new one.
const MAX_SYMBOLS: usize = 1 << 20;
/// Compiled methods of a table before the next turn begins a new one.
const MAX_CODES: usize = 1 << 16;
/// Entries of the first chunk; each chunk is twice as long as the one before.
const FIRST_CHUNK: usize = 1024;

macro_rules! well_known {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// Symbols that the machine itself uses: their numbers are the same in every table.
        pub(super) mod known {
            use super::Symbol;
            #[allow(non_camel_case_types, clippy::upper_case_acronyms, dead_code)]
            enum Number { $($name),* }
            $(#[allow(dead_code)] pub const $name: Symbol = Symbol(Number::$name as u32);)*
        }
        const WELL_KNOWN: &[&str] = &[$($text),*];
    };
}

well_known! {
    ADD = "+", SUBTRACT = "-", MULTIPLY = "*", DIVIDE = "/", FLOOR_DIVIDE = "//", MODULO = "\\\\",
    LESS = "<", AT_MOST = "<=", GREATER = ">", AT_LEAST = ">=", EQUAL = "=", NOT_EQUAL = "~=",
    IDENTICAL = "==", NOT = "not", SIGNAL = "signal", PARENT = "parent",
    // Before its setter, which would add it otherwise.
    DOES_NOT_UNDERSTAND_SLOT = "doesNotUnderstand", DOES_NOT_UNDERSTAND = "doesNotUnderstand:",
}

struct Entry {
    name: Arc<str>,
    /// `x` for `x:`.
    sets: Option<Symbol>,
}

/// Whether it belongs to the image, and the text.
type Source = (bool, Arc<str>);
type Chunk = Box<[OnceLock<Entry>]>;

struct Table {
    chunks: [OnceLock<Chunk>; 20],
    indices: RwLock<HashMap<Arc<str>, Symbol>>,
    codes: Mutex<HashMap<Source, Arc<Code>>>,
}

static CURRENT: LazyLock<RwLock<Arc<Table>>> = LazyLock::new(|| RwLock::new(Arc::new(Table::new())));

/// A turn's hold on the table.
#[derive(Clone)]
pub(super) struct Symbols(Arc<Table>);

impl Symbols {
    pub fn current() -> Self {
        let table = CURRENT.read().unwrap_or_else(PoisonError::into_inner).clone();
        let symbols = table.indices.read().unwrap_or_else(PoisonError::into_inner).len();
        let codes = table.codes.lock().unwrap_or_else(PoisonError::into_inner).len();
        if symbols < MAX_SYMBOLS && codes < MAX_CODES {
            return Self(table);
        }
        let fresh = Arc::new(Table::new());
        *CURRENT.write().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
        Self(fresh)
    }

    pub fn intern(&self, name: &str) -> Symbol {
        let known = self.0.indices.read().unwrap_or_else(PoisonError::into_inner).get(name).copied();
        known.unwrap_or_else(|| self.0.add(name))
    }

    pub fn name(&self, symbol: Symbol) -> &str {
        self.0.entry(symbol).map_or("", |entry| &entry.name)
    }

    /// `x` for `x:`.
    pub fn sets(&self, selector: Symbol) -> Option<Symbol> {
        self.0.entry(selector)?.sets
    }

    /// The code of a method's source, if any turn has compiled it.
    pub fn code(&self, is_kernel: bool, source: &Arc<str>) -> Option<Arc<Code>> {
        let codes = self.0.codes.lock().unwrap_or_else(PoisonError::into_inner);
        codes.get(&(is_kernel, source.clone())).cloned()
    }

    /// The code of a closure that was stored; `None` when it no longer compiles.
    pub fn block_code(&self, block: &Block) -> Option<Arc<Code>> {
        // Same text, same names around it: same code.
        let key: Arc<str> = Arc::from(format!("{:?} {}", block.environment, block.source));
        self.code(block.is_kernel, &key).or_else(|| {
            let code = compile_block(block, self).ok().map(Arc::new)?;
            self.keep_code(block.is_kernel, &key, &code);
            Some(code)
        })
    }

    pub fn keep_code(&self, is_kernel: bool, source: &Arc<str>, code: &Arc<Code>) {
        let mut codes = self.0.codes.lock().unwrap_or_else(PoisonError::into_inner);
        codes.insert((is_kernel, source.clone()), code.clone());
    }
}

/// Chunk and place of entry number `index`.
fn place(index: usize) -> (usize, usize) {
    let chunk = (index / FIRST_CHUNK + 1).ilog2() as usize;
    (chunk, index - FIRST_CHUNK * ((1 << chunk) - 1))
}

impl Table {
    fn new() -> Self {
        let table = Self { chunks: Default::default(), indices: RwLock::default(), codes: Mutex::default() };
        WELL_KNOWN.iter().for_each(|name| {
            table.add(name);
        });
        table
    }

    fn entry(&self, symbol: Symbol) -> Option<&Entry> {
        let (chunk, place) = place(symbol.0 as usize);
        self.chunks.get(chunk)?.get()?.get(place)?.get()
    }

    fn add(&self, name: &str) -> Symbol {
        let sets = name.strip_suffix(':').filter(|name| !name.contains(':') && !name.is_empty()).map(|slot| {
            let known = self.indices.read().unwrap_or_else(PoisonError::into_inner).get(slot).copied();
            known.unwrap_or_else(|| self.add(slot))
        });
        let mut indices = self.indices.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(symbol) = indices.get(name) {
            return *symbol;
        }
        let symbol = Symbol(u32::try_from(indices.len()).unwrap_or(u32::MAX));
        let name: Arc<str> = Arc::from(name);
        let (chunk, place) = place(indices.len());
        let entries = self.chunks.get(chunk).map(|chunk| {
            chunk.get_or_init(|| {
                std::iter::repeat_with(OnceLock::new)
                    .take(FIRST_CHUNK << (indices.len() / FIRST_CHUNK + 1).ilog2())
                    .collect()
            })
        });
        if let Some(entry) = entries.and_then(|entries| entries.get(place)) {
            let _ = entry.set(Entry { name: name.clone(), sets });
        }
        indices.insert(name, symbol);
        symbol
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_keep_their_names_through_growth() {
        let symbols = Symbols(Arc::new(Table::new()));
        assert_eq!(symbols.intern("+"), known::ADD);
        assert_eq!(symbols.name(known::PARENT), "parent");
        let many: Vec<_> = (0..5000).map(|n| symbols.intern(&format!("name{n}:"))).collect();
        for (n, symbol) in many.into_iter().enumerate() {
            assert_eq!(symbols.name(symbol), format!("name{n}:"));
            assert_eq!(symbols.name(symbols.sets(symbol).unwrap()), format!("name{n}"));
        }
        assert_eq!(symbols.sets(symbols.intern("at:put:")), None);
    }
}
