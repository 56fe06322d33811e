//! Lists written as JSON text, element by element, without making values of them.

/// Lists in lists deeper than this are no tensor.
const MAX_DEPTH: usize = 8;

/// The shape of nested lists, of which each level has one length.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Nesting {
    lengths: Vec<Option<usize>>,
}

impl Nesting {
    /// Notes a whole list at `depth`; `false` if one at that depth had another length.
    pub(super) fn note(&mut self, depth: usize, length: usize) -> bool {
        if self.lengths.len() <= depth {
            self.lengths.resize(depth + 1, None);
        }
        *self.lengths[depth].get_or_insert(length) == length
    }

    /// The length of each level, outermost first.
    pub(super) fn shape(&self) -> Vec<usize> {
        self.lengths
            .iter()
            .map(|length| length.unwrap_or(0))
            .collect()
    }
}

/// Hands each element of the list `text` to `element`, in order.
///
/// # Errors
/// What `element` says, or why the text is no list of equally long lists.
pub(super) fn elements(
    text: &str,
    nesting: &mut Nesting,
    element: &mut dyn FnMut(&str) -> Result<(), String>,
) -> Result<(), String> {
    let rest = list(text.trim(), 0, nesting, element)?;
    if rest.trim().is_empty() {
        Ok(())
    } else {
        Err("something follows the list".to_owned())
    }
}

/// Reads the list at the start of `text` and returns what comes after it.
fn list<'a>(
    text: &'a str,
    depth: usize,
    nesting: &mut Nesting,
    element: &mut dyn FnMut(&str) -> Result<(), String>,
) -> Result<&'a str, String> {
    if depth == MAX_DEPTH {
        return Err(format!("lists nested deeper than {MAX_DEPTH}"));
    }
    let mut rest = text.strip_prefix('[').ok_or("not a list")?.trim_start();
    let (mut length, mut lists) = (0, None);
    while !rest.starts_with(']') {
        let is_list = rest.starts_with('[');
        if *lists.get_or_insert(is_list) != is_list {
            return Err("a list beside an element".to_owned());
        }
        if is_list {
            rest = list(rest, depth + 1, nesting, element)?;
        } else {
            let end = leaf_end(rest.as_bytes());
            element(rest[..end].trim_end())?;
            rest = &rest[end..];
        }
        length += 1;
        rest = rest.trim_start();
        match rest.as_bytes().first() {
            Some(b',') => rest = rest[1..].trim_start(),
            Some(b']') => break,
            _ => return Err("the list does not end".to_owned()),
        }
    }
    if !nesting.note(depth, length) {
        return Err("lists of different lengths side by side".to_owned());
    }
    Ok(&rest[1..])
}

/// Where the element at the start ends.
fn leaf_end(text: &[u8]) -> usize {
    if text.first() == Some(&b'"') {
        let mut at = 1;
        while at < text.len() {
            match text[at] {
                b'"' => return at + 1,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        return text.len();
    }
    let ends = |c: &u8| matches!(c, b',' | b']');
    text.iter().position(ends).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Vec<String>, Vec<usize>), String> {
        let (mut found, mut nesting) = (Vec::new(), Nesting::default());
        elements(text, &mut nesting, &mut |element| {
            found.push(element.to_owned());
            Ok(())
        })?;
        Ok((found, nesting.shape()))
    }

    #[test]
    fn elements_come_in_order_with_the_shape() {
        let found = |elements: &[&str], shape: &[usize]| {
            Ok((
                elements.iter().map(|e| e.to_string()).collect(),
                shape.to_vec(),
            ))
        };
        assert_eq!(read("[1, 2.5 ,-3e5]"), found(&["1", "2.5", "-3e5"], &[3]));
        assert_eq!(read(" [[1],[2],[3]] "), found(&["1", "2", "3"], &[3, 1]));
        assert_eq!(
            read(r#"["a,]\"", "ä"]"#),
            found(&[r#""a,]\"""#, "\"ä\""], &[2])
        );
        assert_eq!(read("[]"), found(&[], &[0]));
        assert_eq!(read("[[],[]]"), found(&[], &[2, 0]));
    }

    #[test]
    fn what_is_no_even_list_is_refused() {
        for text in [
            "",
            "1",
            "[1",
            "[1,",
            "[1] 2",
            "[[1],[1,2]]",
            "[1,[2]]",
            "[[1],2]",
            "[\"a",
            "[1]]",
            "[[[[[[[[[1]]]]]]]]]",
            "[\"a\\",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
