"""Finding a pretrained base: a folder here, or a name on the Hugging Face Hub."""

from pathlib import Path

from igla.errors import UserError
from igla.model.bases import BUNDLED, bundled_folder

_FILES = ["config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab.txt"]
_FILES += ["*.jinja", "generation_config.json"]


def base_folder(name: str) -> Path:
    """The local folder of a base; a Hub name is downloaded, or taken from the Hub's cache.

    A base that comes with igla goes before a folder of its name here (which ./NAME names).

    Raises UserError when neither is to be had.
    """
    if name in BUNDLED:
        return bundled_folder(name)
    folder = Path(name).expanduser()
    if (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder} is an adapter: igla adapt merge makes a base of it.")
    if folder.is_dir():
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"There is no folder {name} to take as the base.")
    # Only a Hub name needs this import, and it takes a while.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except HFValidationError:
        raise UserError(f"'{name}' is neither a folder here nor a name on the Hub.") from None
    except LocalEntryNotFoundError:
        raise UserError(
            f"'{name}' is no folder here, and the Hub cannot be reached: "
            "give --base a local folder, or --base none to train from scratch."
        ) from None
    except HfHubHTTPError as error:
        raise UserError(f"The Hub has no model '{name}' for you ({error}).") from None
