//! Other gateways that are heard (§6.1).

use super::*;

fn world() -> (World, Arc<Neighbours>) {
    let mut world = World::with(
        Settings {
            advertise_interval: Some(Duration::from_secs(900)),
            ..settings()
        },
        true,
    );
    let neighbours = Arc::new(Neighbours::default());
    world.endpoint = world.endpoint.with_neighbours(neighbours.clone());
    world.local = GROUP;
    (world, neighbours)
}

fn known(world: &World, neighbours: &Neighbours) -> Vec<(u8, IpAddr)> {
    let list = neighbours.list(world.now);
    list.iter()
        .map(
            |OtherGateway {
                 gateway_id, address, ..
             }| (*gateway_id, address.ip()),
        )
        .collect()
}

/// Three ADVERTISE may be missed (N_ADV, §7.2).
#[test]
fn another_gateway_is_known_until_its_advertise_stays_away() {
    let (mut world, neighbours) = world();
    world.advance(Duration::from_secs(10));
    assert_eq!(world.say_as(&sensor(1), "05 00 08 00 64"), DONE);
    let one = (8, sensor(1).address.ip());
    world.advance(Duration::from_secs(299));
    assert_eq!(known(&world, &neighbours), [one]);
    // A GWINFO does not say for how long.
    world.say_as(&sensor(1), "03 02 08");
    world.advance(Duration::from_secs(1));
    assert_eq!(known(&world, &neighbours), []);
    world.say_as(&sensor(1), "03 02 08");
    world.advance(Duration::from_secs(3 * 900 - 1));
    assert_eq!(known(&world, &neighbours), [one]);
    world.advance(Duration::from_secs(1));
    assert_eq!(known(&world, &neighbours), []);
}

/// Whether or not somebody has looked in between.
#[test]
fn a_gateway_that_was_gone_is_known_again() {
    let (mut world, neighbours) = world();
    world.advance(Duration::from_secs(10));
    world.say_as(&sensor(1), "05 00 08 00 64");
    world.advance(Duration::from_secs(300));
    world.say_as(&sensor(2), "03 02 08");
    assert_eq!(known(&world, &neighbours), [(8, sensor(2).address.ip())]);
}

#[test]
fn what_clients_say_of_gateways_is_not_taken_for_theirs() {
    let (mut world, neighbours) = world();
    assert_eq!(world.say_as(&sensor(1), "07 02 08 C0 00 02 01"), DONE);
    assert_eq!(known(&world, &neighbours), []);
}

#[test]
fn a_gateway_with_the_same_id_is_noticed() {
    let (mut world, neighbours) = world();
    let conflict = dropped(words::GATEWAY_ID_CONFLICT);
    // Its own ADVERTISE comes back to it.
    assert_eq!(world.advance(Duration::ZERO).len(), 1);
    assert_eq!(world.say_as(&sensor(1), "05 00 07 03 84"), DONE);
    assert_eq!(known(&world, &neighbours), []);
    world.advance(Duration::from_millis(2001));
    assert_eq!(world.say_as(&sensor(1), "05 00 07 03 84"), conflict);
    assert_eq!(world.say_as(&sensor(1), "03 02 07"), conflict);
    assert_eq!(known(&world, &neighbours), [(GATEWAY, sensor(1).address.ip())]);
}

#[test]
fn one_endpoint_of_a_listener_listens() {
    let neighbours = Arc::new(Neighbours::default());
    let mut world = World::with(settings(), false);
    world.endpoint = world.endpoint.with_neighbours(neighbours.clone());
    assert_eq!(world.say_as(&sensor(1), "05 00 08 00 64"), DONE);
    assert_eq!(world.say_as(&sensor(1), "05 00 07 00 64"), DONE);
    assert_eq!(known(&world, &neighbours), []);
}

#[test]
fn a_flood_of_gateways_is_bounded_by_their_ids() {
    let (mut world, neighbours) = world();
    world.advance(Duration::from_secs(10));
    for number in 0..100_000_u32 {
        let [.., id] = number.to_be_bytes();
        world.say(&sensor(number), &[5, 0, id, 0xFF, 0xFF]);
    }
    assert_eq!(neighbours.list(world.now).len(), 256);
}
