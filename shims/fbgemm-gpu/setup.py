"""An empty package in the place of the CUDA build that torchrec's metadata asks for.

It brings no module of its own: `import fbgemm_gpu` is answered by fbgemm-gpu-cpu, which it requires.
Why: docs/decisions/0001-cpu-and-gpu-are-alternatives.md.
"""

from setuptools import setup

setup(
    name="fbgemm-gpu",
    version="1.8.0+cpu",
    description="Stands for fbgemm-gpu where fbgemm-gpu-cpu is installed",
    install_requires=["fbgemm-gpu-cpu==1.8.0"],
    py_modules=[],
    packages=[],
)
