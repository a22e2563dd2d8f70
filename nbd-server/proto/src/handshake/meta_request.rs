//! What LIST_META_CONTEXT and SET_META_CONTEXT ask.

use crate::bytes::{Reader, put_string};
use crate::{ExportName, Malformed};

/// Data of LIST_META_CONTEXT and SET_META_CONTEXT, client to server, big-endian.
///
/// `0: name length u32 | 4: name | count u32 | count × { length u32, query }`
/// Source: NBD protocol, `NBD_OPT_LIST_META_CONTEXT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaRequest<'a> {
    /// The export asked about.
    pub name: ExportName,
    /// The queries, whose form has been checked.
    pub queries: MetaQueries<'a>,
}

/// The queries of a [`MetaRequest`], read where they lie.
#[derive(Clone, Copy, Debug)]
pub struct MetaQueries<'a> {
    count: u32,
    data: Reader<'a>,
}

impl<'a> MetaRequest<'a> {
    /// The request in the data of a whole option.
    /// Errors: lengths that disagree, a bad name. Queries may hold any bytes up to 4096: what we
    /// do not know is ignored.
    pub fn parse(data: &'a [u8]) -> Result<MetaRequest<'a>, Malformed> {
        let mut reader = Reader::new(data);
        let name = reader.string()?;
        let count = reader.u32()?;
        let queries = MetaQueries {
            count,
            data: reader,
        };
        for _ in 0..count {
            reader.string()?;
        }
        reader.end()?;
        Ok(MetaRequest {
            name: ExportName::from_wire(name)?,
            queries,
        })
    }

    /// Appends the data of a request for `queries`, each at most 4096 bytes.
    pub fn encode(name: &ExportName, queries: &[&str], out: &mut Vec<u8>) {
        put_string(name.as_str(), out);
        let count = u32::try_from(queries.len()).expect("a request holds few queries");
        out.extend_from_slice(&count.to_be_bytes());
        for query in queries {
            put_string(query, out);
        }
    }
}

impl<'a> MetaQueries<'a> {
    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The queries in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut reader = self.data;
        (0..self.count).map_while(move |_| reader.string().ok())
    }
}

impl PartialEq for MetaQueries<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.iter().eq(other.iter())
    }
}

impl Eq for MetaQueries<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &[u8] =
        b"\x00\x00\x00\x04disk\x00\x00\x00\x02\x00\x00\x00\x05base:\x00\x00\x00\x03x-y";

    #[test]
    fn meta_request_is_these_bytes() {
        let name = ExportName::new("disk").unwrap();
        let mut out = Vec::new();
        MetaRequest::encode(&name, &["base:", "x-y"], &mut out);
        assert_eq!(out, GOLDEN);
        let parsed = MetaRequest::parse(&out).unwrap();
        assert_eq!(parsed.name, name);
        assert_eq!(
            parsed.queries.iter().collect::<Vec<_>>(),
            [&b"base:"[..], b"x-y"]
        );
    }

    #[test]
    fn truncated_requests_are_refused() {
        for cut in 0..GOLDEN.len() {
            assert!(MetaRequest::parse(&GOLDEN[..cut]).is_err(), "{cut} bytes");
        }
        let longer = [GOLDEN, b"!"].concat();
        assert_eq!(MetaRequest::parse(&longer), Err(Malformed::Trailing(1)));
    }

    #[test]
    fn a_query_past_the_end_is_refused() {
        let data = b"\0\0\0\0\x00\x00\x00\x01\x00\x00\x00\x10base:allocation";
        assert_eq!(MetaRequest::parse(data), Err(Malformed::Overrun));
    }

    #[test]
    fn four_billion_queries_end_at_once() {
        let data = b"\0\0\0\0\xff\xff\xff\xff";
        assert_eq!(MetaRequest::parse(data), Err(Malformed::Short));
    }
}
