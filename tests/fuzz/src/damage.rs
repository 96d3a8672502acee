//! Components taken apart into their sections, changed, and put together again.
//!
//! Bytes changed anywhere in a file mostly make a file whose lengths do not add
//! up, and the first check refuses it. Here lengths are written anew, so that
//! what is changed reaches what is behind.

/// A section of a component, or of what is nested in it.
#[derive(Clone)]
enum Section {
    /// Its id and content.
    Plain(u8, Vec<u8>),
    /// A module or component in a component: id, header, sections.
    Nested(u8, Vec<u8>, Vec<Section>),
}

/// The header's length: magic number and version.
const HEADER: usize = 8;

/// Sections of a component that hold a module, and a component.
const NESTED: [u8; 2] = [1, 4];

/// Applies the orders of `input` to `wasm`.
pub(crate) fn damaged(wasm: &[u8], mut input: &[u8]) -> Vec<u8> {
    let Some((header, body)) = wasm.split_at_checked(HEADER) else {
        return wasm.to_vec();
    };
    let mut sections = sections(body, true);
    while let Some(order) = next(&mut input) {
        let at = next(&mut input).unwrap_or(0).into();
        apply(order, at, &mut input, &mut sections);
    }
    let mut out = header.to_vec();
    write(&sections, &mut out);
    out
}

/// One order: which section it is for is in `at`, the rest in the input.
fn apply(order: u8, at: usize, input: &mut &[u8], sections: &mut Vec<Section>) {
    if sections.is_empty() {
        return;
    }
    let at = at % sections.len();
    match order % 8 {
        0 => drop(sections.remove(at)),
        1 => sections.insert(at, sections[at].clone()),
        2 => {
            let other = usize::from(next(input).unwrap_or(0)) % sections.len();
            sections.swap(at, other);
        }
        // The rest is for the content, at whatever depth.
        order => match &mut sections[at] {
            Section::Nested(_, _, inner) => {
                let deeper = next(input).unwrap_or(0).into();
                let order = next(input).unwrap_or(3);
                apply(order, deeper, input, inner);
            }
            Section::Plain(id, content) => change(order, id, content, input),
        },
    }
}

fn change(order: u8, id: &mut u8, content: &mut Vec<u8>, input: &mut &[u8]) {
    let high = next(input).unwrap_or(0);
    let low = next(input).unwrap_or(0);
    let at = usize::from(u16::from_be_bytes([high, low])) % (content.len() + 1);
    let byte = next(input).unwrap_or(0);
    match order {
        // Most often a byte is another.
        3 | 4 => {
            if let Some(place) = content.get_mut(at) {
                *place = byte;
            }
        }
        5 => content.insert(at, byte),
        6 => {
            let end = (at + 1 + usize::from(byte % 8)).min(content.len());
            content.drain(at.min(end)..end);
        }
        _ if byte < 16 => *id = byte,
        _ => content.truncate(at),
    }
}

fn next(input: &mut &[u8]) -> Option<u8> {
    let (first, rest) = input.split_first()?;
    *input = rest;
    Some(*first)
}

/// The sections of `body`; what does not add up stays as one.
fn sections(mut body: &[u8], component: bool) -> Vec<Section> {
    let mut sections = Vec::new();
    while let Some((&id, after)) = body.split_first() {
        let Some((length, after)) = length(after) else {
            break;
        };
        let Some((content, rest)) = after.split_at_checked(length) else {
            break;
        };
        sections.push(match content.split_at_checked(HEADER) {
            Some((header, inner)) if component && NESTED.contains(&id) => {
                // The 7th byte says what it is: 1 for a component.
                Section::Nested(id, header.to_vec(), self::sections(inner, header[6] == 1))
            }
            _ => Section::Plain(id, content.to_vec()),
        });
        body = rest;
    }
    sections
}

fn write(sections: &[Section], out: &mut Vec<u8>) {
    for section in sections {
        let (id, content) = match section {
            Section::Plain(id, content) => (*id, content.clone()),
            Section::Nested(id, header, inner) => {
                let mut content = header.clone();
                write(inner, &mut content);
                (*id, content)
            }
        };
        out.push(id);
        write_length(content.len(), out);
        out.extend(content);
    }
}

/// A number as Wasm writes it, seven bits a byte, and what follows it.
fn length(mut bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0;
    for shift in [0, 7, 14, 21, 28] {
        let byte = next(&mut bytes)?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((length, bytes));
        }
    }
    None
}

fn write_length(mut length: usize, out: &mut Vec<u8>) {
    while length > 0x7f {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_orders_a_component_stays_what_it_is() {
        let whole = crate::small::component();
        assert_eq!(damaged(&whole, &[]), whole);
    }

    #[test]
    fn a_section_can_go_and_a_byte_of_a_nested_one_change() {
        let whole = crate::small::component();
        assert!(damaged(&whole, &[0, 0]).len() < whole.len());
        let changed = damaged(&whole, &[3, 0, 0, 3, 0, 0, 0xff]);
        assert_eq!(changed.len(), whole.len());
        assert_ne!(changed, whole);
    }
}
