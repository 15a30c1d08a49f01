"""The start of a small ViT: tokens differ by what a patch shows and by where it lies."""

import torch
from scripts.fresh_weights import start_image_encoder
from scripts.network import build_segvol


def test_patches_can_be_told_apart_by_more_than_their_mean():
    torch.manual_seed(0)
    network = build_segvol("small")
    embed = network.image_encoder.patch_embedding.patch_embeddings
    flat = torch.full((1, 1, *network.window_size), 0.4)
    ramp = flat + torch.linspace(-0.1, 0.1, 8).repeat(8)
    dark, bright = embed(flat - 0.1)[0, 0], embed(flat + 0.1)[0, 0]
    assert (embed(ramp) - embed(flat))[0, 0].norm() > 0.2 * (bright - dark).norm()
    assert embed(flat).norm(dim=-1).max() < 1e-3  # a patch of the middle value is the origin


def test_every_place_has_its_own_code_and_neighbours_are_alike():
    torch.manual_seed(0)
    network = build_segvol("small")
    codes = network.image_encoder.patch_embedding.position_embeddings[0]
    distances = torch.cdist(codes, codes)
    apart = distances + torch.eye(len(codes)) * 1e3
    assert apart.min() > 0.1
    assert distances[0, 1] < distances[0, 7]  # along the width


def test_the_start_is_the_seeds():
    starts = []
    for _ in range(2):
        torch.manual_seed(3)
        network = build_segvol("small")
        start_image_encoder(network.image_encoder, network.patch_size, network.grid_size)
        starts.append(network.image_encoder.state_dict())
    assert all(torch.equal(value, starts[1][name]) for name, value in starts[0].items())
