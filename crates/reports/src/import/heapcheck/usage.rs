//! What `usage` says of a core: who holds how much, and blocks by size.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The word for a holder's memory in `tool_kind`.
pub(crate) const OWNER: &str = "owner";
/// The same for blocks of one size.
const SIZE: &str = "size";

/// Rows of each kind that are read.
const MAX_ROWS: usize = 4096;

#[derive(Deserialize)]
pub(super) struct Usage {
    #[serde(default)]
    owners: Option<Vec<Owner>>,
    #[serde(default)]
    sizes: Option<Vec<Size>>,
}

#[derive(Deserialize)]
struct Owner {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    holders: Vec<Holder>,
    #[serde(default)]
    blocks: u64,
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    mapping_bytes: u64,
}

#[derive(Deserialize)]
struct Holder {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    function: Option<String>,
    #[serde(default)]
    variable: Option<String>,
    #[serde(default)]
    symbol: Option<String>,
    #[serde(default)]
    module: Option<String>,
    #[serde(default)]
    module_offset: Option<String>,
}

#[derive(Deserialize)]
struct Size {
    #[serde(default)]
    block_bytes: u64,
    #[serde(default)]
    in_use: u64,
    #[serde(default)]
    bytes: u64,
}

/// Memory under a name that is the same in the next core of the process.
pub(super) struct Row {
    pub tool_kind: &'static str,
    pub name: String,
    pub blocks: u64,
    pub bytes: u64,
}

impl Row {
    pub fn message(&self) -> String {
        let verb = if self.tool_kind == OWNER {
            "held by"
        } else {
            "in"
        };
        format!(
            "{} bytes in {} blocks {verb} {}",
            self.bytes, self.blocks, self.name
        )
    }
}

impl Usage {
    /// Its rows; those of one name are added.
    pub fn rows(&self) -> Vec<Row> {
        let mut found: BTreeMap<(&'static str, String), (u64, u64)> = BTreeMap::new();
        let mut add = |kind, name: String, blocks: u64, bytes: u64| {
            let sum = found.entry((kind, name)).or_default();
            sum.0 = sum.0.saturating_add(blocks);
            sum.1 = sum.1.saturating_add(bytes);
        };
        for owner in self.owners.iter().flatten().take(MAX_ROWS) {
            let name = owner.name();
            let bytes = owner.bytes.saturating_add(owner.mapping_bytes);
            add(OWNER, name, owner.blocks, bytes);
        }
        for size in self.sizes.iter().flatten().take(MAX_ROWS) {
            let name = format!("blocks of {} bytes", size.block_bytes);
            add(SIZE, name, size.in_use, size.bytes);
        }
        let rows = found.into_iter();
        rows.map(|((tool_kind, name), (blocks, bytes))| Row {
            tool_kind,
            name,
            blocks,
            bytes,
        })
        .collect()
    }
}

impl Owner {
    /// Its holders by names; several of a kind have none.
    fn name(&self) -> String {
        let names: Vec<String> = self.holders.iter().map(Holder::name).collect();
        match (names.is_empty(), self.kind.as_str()) {
            (false, _) => names.join(" and "),
            (true, "nobody") => "nobody".to_owned(),
            (true, kind) => format!("several {kind}"),
        }
    }
}

impl Holder {
    fn name(&self) -> String {
        let module = self.module.as_deref().unwrap_or("a module");
        let function = self.function.as_deref();
        match (self.kind.as_str(), &self.variable, &self.symbol) {
            ("global", _, Some(symbol)) => format!("variable {symbol} of {module}"),
            ("global", ..) => {
                let offset = self.module_offset.as_deref().unwrap_or("");
                format!("variables of {module}+{offset}")
            }
            ("tls", Some(name), _) | ("tls", None, Some(name)) => format!("thread-local {name}"),
            (_, Some(variable), _) => match function {
                Some(function) => format!("variable {variable} of {function}"),
                None => format!("variable {variable}"),
            },
            (kind, ..) => match function {
                Some(function) => format!("the {kind} of {function}"),
                None => format!("the {kind}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_by_name_and_blocks_by_size() {
        let text = r#"{"owners":[{"kind":"global","holders":[{"kind":"global","symbol":"cache","module":"prog"}],"blocks":3,"bytes":90,"mapping_bytes":10},
            {"kind":"nobody","holders":[],"blocks":1,"bytes":8},{"kind":"threads","holders":[],"blocks":1,"bytes":8},
            {"kind":"stack","holders":[{"kind":"stack","function":"main","variable":"list"}],"blocks":1,"bytes":8}],
            "sizes":[{"block_bytes":40,"in_use":2,"bytes":80},{"block_bytes":40,"in_use":1,"bytes":40}]}"#;
        let usage: Usage = serde_json::from_str(text).unwrap();
        let rows: Vec<(String, u64, u64)> = usage
            .rows()
            .into_iter()
            .map(|row| (row.name, row.blocks, row.bytes))
            .collect();
        let expected = [
            ("nobody", 1, 8),
            ("several threads", 1, 8),
            ("variable cache of prog", 3, 100),
            ("variable list of main", 1, 8),
            ("blocks of 40 bytes", 3, 120),
        ];
        assert_eq!(
            rows,
            expected.map(|(name, blocks, bytes)| (name.to_owned(), blocks, bytes))
        );
    }
}
