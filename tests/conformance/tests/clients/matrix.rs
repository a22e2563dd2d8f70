//! The clients that have no test of their own here, each over every transport; `scripts/interop`
//! runs all of them and writes the table into `docs/conformance.md`.

use conformance::matrix::{Bench, CLIENTS, Cell, Transport};
use conformance::tools;

/// The table's clients that other modules do not drive.
const HERE: [&str; 4] = [
    "nbdsh",
    "nbdfuse",
    "qemu-storage-daemon",
    "nbdkit nbd plugin",
];

#[test]
fn servers_and_mounts_that_are_clients_of_ours_pass_the_image_through() {
    let Some(bench) = Bench::start() else { return };
    for client in CLIENTS.iter().filter(|client| HERE.contains(&client.name)) {
        for transport in Transport::ALL {
            let cell = bench.cell(client, transport);
            println!("{} over {}: {cell:?}", client.name, transport.word());
            match cell {
                Cell::Fails(why) => panic!("{} over {}: {why}", client.name, transport.word()),
                Cell::Missing(package) => drop(tools::skip(&format!("install {package}"))),
                Cell::Works(_) | Cell::Absent(_) => {}
            }
        }
    }
}
