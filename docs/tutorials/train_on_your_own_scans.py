# %% [markdown]
# # Train on your own scans, and put the weights on a scanner
#
# Fully sampled scans of your own become a weights file, and a server offers it to the scanner. The network of this
# tutorial is tiny and sees six phantoms, so that all takes less than a minute on one processor core. It
# makes no good images.

# %%
import atexit
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from gadgets.hosts.ping import ping


def run(command: str) -> None:
    """Run a command of this project, such as "training fit ismrmrd", and show what it prints."""
    words = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(words, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(done.stdout)


# %% [markdown]
# ## A folder of scans
#
# The recipe `ismrmrd` takes a folder of fully sampled Cartesian ISMRMRD scans, 2-D or 3-D, of any anatomy. Here we
# simulate six. The scans of one patient stay on one side of the split into training and validation.

# %%
Path("scans").mkdir(exist_ok=True)
for seed in range(1, 7):
    run(f"gadgets simulate -o scans/scan{seed}.h5 --matrix 64 --coils 6 --slices 2 --acceleration 1 --seed {seed}")

# %% [markdown]
# `check` says within seconds what is missing or malformed. `fit --dry-run` prints all options, the number of
# slices, and the memory that the run needs.

# %%
run("training check scans --recipe ismrmrd")

# %% [markdown]
# ## Training
#
# `key=value` overrides the recipe. Say what the scans show: the scanner then warns of scans that are unlike them.
# With a GPU, add `device=cuda`, leave the network's options alone, and let it train for its 30 epochs. A run that
# was cut off goes on with the same command.

# %%
run(
    "training fit ismrmrd data=scans folder=run weights=run/mine.safetensors licence=in-house workers=0 epochs=6 "
    "'network.options={cascades: 2, channels: 6, pooling_layers: 2}' 'validation={every: 24, examples: 2}' "
    "optimiser.ema=0.9 'seen.anatomy=[phantom]' 'masks={accelerations: [3], centres: [12]}'"
)

# %% [markdown]
# ## The weights file
#
# One file holds the network, its options, and the preparation: whitening, coils, sensitivities, scale. The scanner
# needs nothing else.

# %%
run("mrnets show run/mine.safetensors")

# %% [markdown]
# ## A scan
#
# The chain `network` is for weights of your own. It leaves coil compression and sensitivities to the weights file.
# The self-check finds that this network is not to be trusted, since six phantoms are no training. l1-wavelet's
# image takes its place, and the image says FALLBACK. `--set network.check=warn` shows the network's own image.

# %%
run("gadgets simulate -o new.h5 --matrix 64 --coils 6 --acceleration 3 --calibration 12 --seed 99")
run("gadgets replay new.h5 -c network --set network.weights=run/mine.safetensors -o images.h5 --png pictures")

# %% [markdown]
# ## On a scanner
#
# Clients name weights of a folder that you choose, never paths. The server loads the chain before the first scan,
# and says by `ping` that it answers. A copy of the chain with your weights in it becomes a chain of your own.

# %%
for name in ("weights", "chains"):
    Path(name).mkdir(exist_ok=True)
shutil.copy("run/mine.safetensors", "weights/mine.safetensors")
run("gadgets chains network")

# %%
from gadgets.hosts.library import find

chain = find("network")[0].decode().replace('value="l1varnet_general"', 'value="mine"')
Path("chains/mine.xml").write_text(chain)

# %% [markdown]
# The server takes a port that is free. On a scanner, give `--host` the address that the scanner reaches. A systemd
# unit and Docker images are ready; see the page on deployment.

# %%
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
words = f"-m gadgets serve --port {port} --chains chains --weights weights --preload mine --spool spool"
server = subprocess.Popen([sys.executable, *words.split()], stderr=subprocess.PIPE, text=True)
atexit.register(server.kill)  # should a later cell fail
assert server.stderr is not None
for line in server.stderr:
    print(line, end="")
    if "listening on" in line:
        break
print(ping("127.0.0.1", port, 60))

# %% [markdown]
# A scanner, or a client, now names the chain: `gadgetron_ismrmrd_client -p PORT -f new.h5 -c mine.xml -o
# images.h5`. Each scan is kept in the folder `spool` for a week, so that none is lost.

# %%
server.terminate()
assert server.wait(120) == 0
