"""Scripts that print the tables of the docs; each has `--help`.

| `python -m experiments.NAME` | table |
|---|---|
| `arrays` | docs/performance.md, pictures that a client has as arrays |
| `bulk` | docs/bulk.md, rate, memory and kills; `make bench-bulk` |
| `decoding` | docs/images.md, reduced decoding of JPEGs, and the resizer |
| `full_size` | docs/checkpoints.md, time and memory of a build; writes a checkpoint of RAM's size |
| `fuzz_images` | none: it feeds the preprocessor damaged files, of the corpus in `image_files` |
| `gpu` | none yet: TensorRT beside PyTorch; part of `make test-gpu`, for docs/gpu.md |
| `head_cost` | docs/vocabularies.md, what labels cost; docs/performance.md, heat maps |
| `heat_maps` | docs/where.md, how good it is; the ways to make maps are in `attention` |
| `image_corpora` | docs/images.md, public test pictures beside libvips and ImageMagick |
| `image_limits` | docs/images.md, what the largest pictures take |
| `int8` | docs/performance.md, precision on a CPU |
| `open_set` | docs/vocabularies.md, how accurate new names are |
| `operators` | docs/performance.md, where the engine's time goes |
| `overload` | docs/operations.md, overload; `make overload` |
| `page` | none: it makes the picture of docs/page.md, and runs the page for its tests |
| `ray_data` | docs/bulk.md, Ray Data with a server and without one |
| `soak` | docs/operations.md, soak; `make soak` |

Like a subcommand of `ram-triton`, a script has `add_arguments` and `run`;
`ram_triton.cli.run_module` runs it and reports errors in a line.
"""
