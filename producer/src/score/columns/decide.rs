//! Finding the columns of every input.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::OnceLock;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType as ArrowType, Schema};
use inferq_schemas::{DataType, Dim, TensorSpec, nearest};

use super::cells::{is_number, number_in, readable};
use super::{By, Input, InputNote, MapRule, Mapping, shown};

/// Cells of the sample that are looked at to tell what a text column holds.
const SAMPLED_CELLS: usize = 1_000;

/// Why columns and inputs do not come together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// Inputs without columns.
    #[error("{}", uncovered(inputs, columns))]
    Uncovered {
        /// The inputs.
        inputs: Vec<Uncovered>,
        /// All columns there are.
        columns: Vec<String>,
    },
    /// A rule names a column that is not there.
    #[error("{by} names column `{column}`, which is not there{}", did_you_mean(nearest.as_deref()))]
    NoColumn {
        /// `--map` or `model.toml`.
        by: &'static str,
        /// The column.
        column: String,
        /// A column with almost that name.
        nearest: Option<String>,
    },
    /// A rule names an input that the model has not.
    #[error("{by} names input `{input}`, which the model has not{}", did_you_mean(nearest.as_deref()))]
    NoInput {
        /// `--map` or `model.toml`.
        by: &'static str,
        /// The input.
        input: String,
        /// An input with almost that name.
        nearest: Option<String>,
    },
    /// Two `--map` for one input.
    #[error("--map names input `{input}` twice; give all its columns at once")]
    Twice {
        /// The input.
        input: String,
    },
    /// A rule gives a number of columns that cannot be a row of the input.
    #[error("{by} gives {columns} columns for `{spec}`, which takes {needs} per row")]
    Width {
        /// `--map` or `model.toml`.
        by: &'static str,
        /// How many.
        columns: usize,
        /// The input as people write it.
        spec: String,
        /// What a row has.
        needs: String,
    },
    /// A column of a type that is no element of an input.
    #[error("column `{column}` is {found}, which does not become {datatype}; convert it first")]
    Type {
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// What the input takes.
        datatype: DataType,
    },
    /// An input without axes cannot hold rows.
    #[error(
        "input `{input}` of the model is a single value and has no axis for rows; rows cannot be scored with it"
    )]
    NoRows {
        /// The input.
        input: String,
    },
}

/// An input that no column makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uncovered {
    /// The input.
    pub input: String,
    /// Its datatype and shape as people write them.
    pub spec: String,
    /// What a row has.
    pub needs: String,
    /// What comes close, and why it is not taken.
    pub reason: String,
}

/// What a column holds, as far as can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    Text,
    /// Lists, with their length if the type says it.
    List(Option<usize>),
    /// Text of which no cell was seen.
    Unknown,
    Other,
}

struct Table<'a> {
    columns: &'a Schema,
    kinds: Vec<Kind>,
}

pub(super) fn decide(
    columns: &Schema,
    specs: &[TensorSpec],
    maps: &[MapRule],
    declared: &BTreeMap<String, Vec<String>>,
    sample: Option<&RecordBatch>,
) -> Result<Mapping, MappingError> {
    let table = Table::new(columns, sample);
    check_rules(specs, maps, declared)?;
    let (mut inputs, mut missing) = (Vec::new(), Vec::new());
    for spec in specs {
        if spec.shape.is_empty() {
            let input = spec.name.clone();
            return Err(MappingError::NoRows { input });
        }
        let mapped = maps.iter().find(|rule| rule.input == spec.name);
        let found = if let Some(rule) = mapped {
            Ok((table.given("--map", &rule.columns, spec)?, By::Map))
        } else if let Some(names) = declared.get(&spec.name).filter(|names| table.knows(names)) {
            Ok((table.given("model.toml", names, spec)?, By::ModelToml))
        } else {
            table.search(spec, specs.len() == 1)
        };
        match found {
            Ok((places, by)) => {
                table.check_types(&places, spec.datatype)?;
                inputs.push(table.input(spec, places, by));
            }
            Err(reason) => missing.push(Uncovered {
                input: spec.name.clone(),
                spec: spec.to_string(),
                needs: needs(spec),
                reason,
            }),
        }
    }
    if !missing.is_empty() {
        return Err(MappingError::Uncovered {
            inputs: missing,
            columns: table.names().map(str::to_owned).collect(),
        });
    }
    let used: HashSet<usize> = inputs
        .iter()
        .flat_map(|input| input.places.clone())
        .collect();
    let ignored = table
        .names()
        .enumerate()
        .filter(|(place, _)| !used.contains(place));
    Ok(Mapping {
        ignored: ignored.map(|(_, name)| name.to_owned()).collect(),
        inputs,
    })
}

/// Whether all rules name inputs of the model, and none twice.
fn check_rules(
    specs: &[TensorSpec],
    maps: &[MapRule],
    declared: &BTreeMap<String, Vec<String>>,
) -> Result<(), MappingError> {
    let names = || specs.iter().map(|spec| spec.name.as_str());
    let by_map = maps.iter().map(|rule| ("--map", &rule.input));
    let by_toml = declared.keys().map(|input| ("model.toml", input));
    for (by, input) in by_map.chain(by_toml) {
        if !names().any(|name| name == input) {
            return Err(MappingError::NoInput {
                by,
                input: input.clone(),
                nearest: nearest(input, names()).map(str::to_owned),
            });
        }
    }
    let mut seen = HashSet::new();
    match maps.iter().find(|rule| !seen.insert(&rule.input)) {
        Some(rule) => Err(MappingError::Twice {
            input: rule.input.clone(),
        }),
        None => Ok(()),
    }
}

impl<'a> Table<'a> {
    fn new(columns: &'a Schema, sample: Option<&RecordBatch>) -> Self {
        let fields = columns.fields().iter().enumerate();
        let kinds = fields.map(|(place, field)| {
            let seen = sample.and_then(|batch| batch.columns().get(place));
            kind(field.data_type(), seen.map(|column| &**column))
        });
        Self {
            kinds: kinds.collect(),
            columns,
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.columns
            .fields()
            .iter()
            .map(|field| field.name().as_str())
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.names().position(|column| column == name)
    }

    /// Whether any of the columns is there. A table that has none of them has names of its own, or
    /// lists where others have columns.
    fn knows(&self, names: &[String]) -> bool {
        names.iter().any(|name| self.place(name).is_some())
    }

    /// The places of columns that somebody named for an input.
    fn given(
        &self,
        by: &'static str,
        names: &[String],
        spec: &TensorSpec,
    ) -> Result<Vec<usize>, MappingError> {
        let place = |name: &String| {
            self.place(name).ok_or_else(|| MappingError::NoColumn {
                by,
                column: name.clone(),
                nearest: nearest(name, self.names()).map(str::to_owned),
            })
        };
        let places: Vec<usize> = names.iter().map(place).collect::<Result<_, _>>()?;
        let lists = |place: &usize| match self.kinds[*place] {
            Kind::List(_) => true,
            Kind::Unknown => places.len() == 1,
            Kind::Number | Kind::Text | Kind::Other => false,
        };
        if !places.iter().any(lists) && row_shape(spec, &[], places.len()).is_err() {
            return Err(MappingError::Width {
                by,
                columns: places.len(),
                spec: spec.to_string(),
                needs: needs(spec),
            });
        }
        Ok(places)
    }

    /// The columns that their names, or the model's only input, say.
    fn search(&self, spec: &TensorSpec, only: bool) -> Result<(Vec<usize>, By), String> {
        let fits = |count| row_shape(spec, &[], count).is_ok();
        if let Some(place) = self.place(&spec.name) {
            let taken = match self.kinds[place] {
                Kind::List(_) | Kind::Unknown => true,
                Kind::Number | Kind::Text | Kind::Other => fits(1),
            };
            if taken {
                return Ok((vec![place], By::Name));
            }
        }
        let numbered = (0..).map_while(|n| self.place(&format!("{}_{n}", spec.name)));
        let numbered: Vec<usize> = numbered.collect();
        if !numbered.is_empty() {
            if fits(numbered.len()) {
                return Ok((numbered, By::Numbers));
            }
            let last = numbered.len() - 1;
            return Err(format!("there are `{0}_0` to `{0}_{last}` only", spec.name));
        }
        if only {
            return self.all(spec);
        }
        Err(self.close_to(&spec.name))
    }

    /// The only list, or all columns of the kind that the only input takes.
    fn all(&self, spec: &TensorSpec) -> Result<(Vec<usize>, By), String> {
        let of = |wanted: &dyn Fn(Kind) -> bool| -> Vec<usize> {
            let kinds = self.kinds.iter().enumerate();
            kinds
                .filter(|(_, kind)| wanted(**kind))
                .map(|(place, _)| place)
                .collect()
        };
        let fits = |count| row_shape(spec, &[], count).is_ok();
        let lists = of(&|kind| match kind {
            Kind::List(Some(length)) => fits(length),
            Kind::List(None) => true,
            Kind::Number | Kind::Text | Kind::Unknown | Kind::Other => false,
        });
        if lists.len() == 1 {
            return Ok((lists, By::All));
        }
        let wanted = match spec.datatype {
            DataType::Bytes => Kind::Text,
            _ => Kind::Number,
        };
        let alike = of(&|kind| kind == wanted || kind == Kind::Unknown);
        if fits(alike.len()) {
            return Ok((alike, By::All));
        }
        if self.kinds == [Kind::Unknown] {
            return Ok((vec![0], By::All));
        }
        let what = if wanted == Kind::Text {
            "text"
        } else {
            "number"
        };
        let count = alike.len();
        let plural = if count == 1 { "column" } else { "columns" };
        Err(format!(
            "there are {count} {what} {plural}; {}",
            self.close_to(&spec.name)
        ))
    }

    fn close_to(&self, name: &str) -> String {
        match nearest(name, self.names()) {
            Some(near) => format!("the nearest column is `{near}`"),
            None => "no column has a name like it".to_owned(),
        }
    }

    fn check_types(&self, places: &[usize], datatype: DataType) -> Result<(), MappingError> {
        let fields = places.iter().map(|place| self.columns.field(*place));
        for field in fields {
            if !readable(field.data_type(), datatype) {
                return Err(MappingError::Type {
                    column: field.name().clone(),
                    found: field.data_type().to_string(),
                    datatype,
                });
            }
        }
        Ok(())
    }

    fn input(&self, spec: &TensorSpec, places: Vec<usize>, by: By) -> Input {
        let name = |place: &usize| self.columns.field(*place).name().clone();
        let free = spec.shape[1..].contains(&Dim::Any);
        let single = |place: &usize| matches!(self.kinds[*place], Kind::Number | Kind::Text);
        let shape = OnceLock::new();
        // Columns of single values settle a free axis by their number.
        if !free || (places.len() > 1 && places.iter().all(single)) {
            let count = spec.shape[1..].iter().map(|dim| match dim {
                Dim::Fixed(size) => *size,
                Dim::Any => 1,
            });
            let count = if free { places.len() } else { count.product() };
            if let Ok(settled) = row_shape(spec, &[], count) {
                shape.get_or_init(|| settled);
            }
        }
        Input {
            note: InputNote {
                input: spec.name.clone(),
                datatype: spec.datatype,
                columns: places.iter().map(name).collect(),
                by,
            },
            spec: spec.clone(),
            places,
            shape,
        }
    }
}

/// What a column holds, by its type and the cells of the sample.
fn kind(datatype: &ArrowType, seen: Option<&dyn Array>) -> Kind {
    match datatype {
        ArrowType::Utf8 => text_kind(seen),
        ArrowType::Binary => Kind::Text,
        ArrowType::List(_) => Kind::List(None),
        ArrowType::FixedSizeList(item, size) => match item.data_type() {
            ArrowType::List(_) | ArrowType::FixedSizeList(..) => Kind::List(None),
            _ => Kind::List(usize::try_from(*size).ok()),
        },
        other if is_number(other) => Kind::Number,
        _ => Kind::Other,
    }
}

fn text_kind(seen: Option<&dyn Array>) -> Kind {
    let Some(cells) = seen.and_then(|seen| seen.as_string_opt::<i32>()) else {
        return Kind::Unknown;
    };
    let mut cells = cells
        .iter()
        .flatten()
        .map(str::trim)
        .filter(|cell| !cell.is_empty());
    let mut kind = Kind::Unknown;
    for cell in cells.by_ref().take(SAMPLED_CELLS) {
        let this = if cell.starts_with('[') {
            Kind::List(None)
        } else if number_in(cell.trim_matches('"')).is_some() {
            Kind::Number
        } else {
            Kind::Text
        };
        if kind == Kind::Unknown {
            kind = this;
        }
        if kind != this {
            return Kind::Text;
        }
    }
    kind
}

/// The shape of a row of `spec` that has `count` elements, in lists of the lengths `nested` if it says.
pub(super) fn row_shape(
    spec: &TensorSpec,
    nested: &[usize],
    count: usize,
) -> Result<Vec<usize>, String> {
    let axes = &spec.shape[1..];
    if nested.len() == axes.len() && !axes.is_empty() {
        if axes.iter().zip(nested).all(|(dim, size)| dim.takes(*size)) {
            return Ok(nested.to_vec());
        }
        return Err(format!("a list of {nested:?} where {spec} is expected"));
    }
    if nested.len() > 1 {
        let depth = nested.len();
        return Err(format!(
            "lists nested {depth} deep where {spec} is expected"
        ));
    }
    let fixed = axes.iter().filter_map(|dim| match dim {
        Dim::Fixed(size) => Some(*size),
        Dim::Any => None,
    });
    let fixed: usize = fixed.product();
    let free = axes.iter().filter(|dim| **dim == Dim::Any).count();
    let fits = match free {
        0 => count == fixed,
        1 => fixed > 0 && count > 0 && count % fixed == 0,
        _ => {
            return Err(format!(
                "a flat list where {spec} is expected; nest the lists by axis"
            ));
        }
    };
    if !fits {
        let needs = needs(spec);
        return Err(format!("a row of {count} where {spec} takes {needs}"));
    }
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => *size,
        Dim::Any => count / fixed,
    };
    Ok(axes.iter().map(size).collect())
}

/// What a row of an input has, in words.
fn needs(spec: &TensorSpec) -> String {
    let what = match spec.datatype {
        DataType::Bytes => "text",
        _ => "number",
    };
    let axes = &spec.shape[1..];
    let fixed = axes.iter().filter_map(|dim| match dim {
        Dim::Fixed(size) => Some(*size),
        Dim::Any => None,
    });
    let fixed: usize = fixed.product();
    match axes.iter().filter(|dim| **dim == Dim::Any).count() {
        0 if fixed == 1 => format!("one {what}"),
        0 => format!("{fixed} {what}s"),
        1 if fixed == 1 => format!("a list of {what}s"),
        1 => format!("a list of {what}s, a multiple of {fixed}"),
        free => format!("nested lists of {what}s with {free} free axes"),
    }
}

fn uncovered(inputs: &[Uncovered], columns: &[String]) -> String {
    let mut text = String::from("some inputs of the model have no columns:");
    for Uncovered {
        input,
        spec,
        needs,
        reason,
    } in inputs
    {
        text.push_str(&format!("\n  {spec} takes {needs} per row; {reason}"));
        text.push_str(&format!(
            ". Name the columns `{input}` or `{input}_0`, `{input}_1`, .., or use --map COLUMN,..={input}"
        ));
    }
    text.push_str(&format!("\nThe input has {}.", shown(columns)));
    text
}

fn did_you_mean(nearest: Option<&str>) -> impl fmt::Display {
    match nearest {
        Some(name) => format!("; did you mean `{name}`?"),
        None => String::new(),
    }
}
